// Metrics against updates, interactions or wall time; mean and band over the runs of a group.
const GRADED = new Set(["Test: reward, mean", "Test: reward, best", "Training: reward"]); // where rewards say more than passes
const CURVES = [
  [/^eval\/per_task\/mean@/, "Test: tasks solved, mean"], [/^eval\/per_task\/best@(?!1$)/, "Test: tasks solved, best"],
  [/^eval\/per_case\/mean@/, "Test: cases passed, mean"], [/^eval\/per_case\/best@(?!1$)/, "Test: cases passed, best"],
  [/^eval\/reward\/mean@/, "Test: reward, mean"], [/^eval\/reward\/best@(?!1$)/, "Test: reward, best"],
  [/^eval\/reward\/.+\/mean@/, "Test: reward of one judge, mean"],
  [/^eval\/(?!per_|reward\/)([^/]+)\/mean@/, "Test: $1, mean"], // a task's own scores
  [/^forgetting\/per_task\/mean@/, "Second task: solved, mean"], [/^forgetting\/per_case\/mean@/, "Second task: cases passed, mean"],
  [/^train\/per_task$/, "Training: tasks solved"], [/^train\/reward$/, "Training: reward"], [/^loss$/, "Loss"], [/^grad_norm$/, "Gradient norm"],
  [/^response\/length$/, "Response length (tokens)"], [/^playbook\/size$/, "Playbook entries"],
  [/^mismatch_kl$/, "Engine–trainer mismatch KL"], [/^topk_mass$/, "Student's mass in the top k"],
];
const AXES = { steps: "Updates", interactions: "Interactions", seconds: "Wall time" };

function band(values, kind) {
  const n = values.length;
  const mean = values.reduce((a, b) => a + b, 0) / n;
  const reach = [Math.min(...values), Math.max(...values)];
  if (n < 2 || kind === "runs") return { mean, low: mean, high: mean, reach, n };
  if (kind === "range") return { mean, low: reach[0], high: reach[1], reach, n };
  const deviation = Math.sqrt(values.reduce((a, b) => a + (b - mean) ** 2, 0) / (n - 1));
  const half = ((DATA.t95[n - 2] || DATA.z95) * deviation) / Math.sqrt(n);
  return { mean, low: mean - half, high: mean + half, reach, n };
}

function groupSeries(group, index, name, axis, kind) {
  const runs = group.runs.map((i) => DATA.runs[i].timeline).filter((t) => t.columns[name]);
  const steps = [...new Set(runs.flatMap((t) => t.steps))].sort((a, b) => a - b);
  const points = [];
  for (const step of steps) {
    const found = runs.map((t) => [t, t.steps.indexOf(step)]).filter(([t, i]) => i >= 0 && t.columns[name][i] !== null);
    if (!found.length) continue;
    const x = found.reduce((sum, [t, i]) => sum + t[axis][i], 0) / found.length;
    points.push({ x, ...band(found.map(([t, i]) => t.columns[name][i]), kind) });
  }
  const each = (t) => t.steps.map((_, i) => ({ x: t[axis][i], mean: t.columns[name][i] })).filter((p) => p.mean !== null);
  return { label: group.label, index, points, lines: kind === "runs" && runs.length > 1 ? runs.map(each) : [] };
}

function drawCurves() {
  const names = [...new Set(DATA.runs.flatMap((run) => Object.keys(run.timeline.columns)))].sort();
  const curves = CURVES.filter(([, title]) => DATA.graded || !GRADED.has(title));
  const several = DATA.groups.some((group) => group.runs.length > 1);
  // An interval over two seeds is wider than any chart.
  const state = { axis: "steps", kind: DATA.groups.some((group) => group.runs.length > 2) ? "interval" : "range", off: new Set(), extra: "" };
  const charts = el("div", { class: "charts" });
  const chart = (name, title) => lineChart({
    title, name,
    series: DATA.groups.map((g, i) => (state.off.has(i) ? { points: [], lines: [] } : groupSeries(g, i, name, state.axis, state.kind))),
    isPercent: /per_(task|case)|\/reward|\/mean@|\/best@|truncated$/.test(name),
    xName: AXES[state.axis].toLowerCase(),
    xFormat: (v) => (state.axis === "seconds" ? duration(v) : number(v)),
  });
  const draw = () => {
    const fixed = curves.flatMap(([pattern, title]) =>
      names.filter((name) => pattern.test(name)).map((name) => [name, title.replace("$1", () => pattern.exec(name)[1])]));
    charts.replaceChildren(...[...fixed, ...(state.extra ? [[state.extra, state.extra]] : [])].map(([name, title]) => chart(name, title)));
  };
  const set = (key) => (value) => { state[key] = value; draw(); };
  const legend = DATA.groups.map((group, i) => {
    const button = el("button", { "aria-pressed": "true", onclick: () => {
      if (!state.off.delete(i)) state.off.add(i);
      button.setAttribute("aria-pressed", String(!state.off.has(i)));
      draw();
    } }, el("span", { class: "swatch", style: `background: ${color(i)}` }), group.label + (group.runs.length > 1 ? ` (${group.runs.length} seeds)` : ""));
    return button;
  });
  section("curves").append(
    el("div", { class: "controls" },
      segments("against", Object.entries(AXES), state.axis, set("axis")),
      several ? segments("band", [["interval", "95 % interval"], ["range", "range"], ["runs", "each run"]], state.kind, set("kind")) : null,
      picker("also show", [["", "–"], ...names.filter((n) => !curves.some(([p]) => p.test(n))).map((n) => [n, n])], "", set("extra"))),
    el("div", { class: "controls", role: "group", "aria-label": "Methods shown" }, legend), charts);
  draw();
}
