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
  [/^perf\/tokens_per_s$/, "Tokens a second"], [/^perf\/mfu$/, "Model FLOPs utilisation"], [/^perf\/peak_memory_gb$/, "Peak memory (GB)"],
  [/^mismatch_kl$/, "Engine–trainer mismatch KL"], [/^topk_mass$/, "Student's mass in the top k"],
];
const AXES = { steps: "Updates", interactions: "Interactions", tokens: "Tokens", seconds: "Wall time" };
const BANDS = { interval: "95 % interval", range: "range", runs: "each run" };
const EXTRA = 24; // charts at most, for a few letters may match any number of names

function drawCurves() {
  const body = section("curves");
  const names = [...new Set(DATA.runs.flatMap((run) => Object.keys(run.timeline.columns)))].sort();
  const fixed = CURVES.filter(([, title]) => DATA.graded || !GRADED.has(title)).flatMap(([pattern, title]) =>
    names.filter((name) => pattern.test(name)).map((name) => [name, title.replace("$1", () => pattern.exec(name)[1])]));
  const several = DATA.groups.some((group) => group.runs.length > 1);
  const axes = Object.entries(AXES).filter(([axis]) => DATA.runs.some((run) => run.timeline[axis]));
  // An interval over two seeds is wider than any chart.
  const usual = DATA.groups.some((group) => group.runs.length > 2) ? "interval" : "range";
  const smooths = ["1", "5", "15", "45"];
  const state = view("curves", { axis: "steps", band: usual, smooth: "1", scale: "linear", also: "", off: "", zoom: "" },
    { axis: axes.map(([axis]) => axis), band: Object.keys(BANDS), smooth: smooths, scale: ["linear", "log"] });
  const charts = el("div", { class: "charts" });
  const reset = el("button", { onclick: () => zoom(null) }, "Show all of it");
  const off = () => new Set(state.off.split(",").filter(Boolean).map(Number));
  function zoom(range) {
    state.zoom = range ? range.map((v) => Number(v.toPrecision(6))).join(",") : "";
    draw();
  }
  function extra() {
    const words = state.also.split(/[\s,]+/).filter((word) => word.length > 1);
    return names.filter((name) => words.some((word) => (names.includes(word) ? name === word : name.includes(word))) && !fixed.some(([known]) => known === name)).slice(0, EXTRA);
  }
  const chart = ([name, title]) => lineChart({
    title, name,
    series: DATA.groups.map((g, i) => (off().has(i) ? { points: [], lines: [] } : groupSeries(g, i, name, state))),
    isPercent: /per_(task|case)|\/reward|\/mean@|\/best@|truncated$/.test(name),
    isLog: state.scale === "log",
    zoom: /^[^,]+,[^,]+$/.test(state.zoom) ? state.zoom.split(",").map(Number) : null,
    zoomed: zoom,
    xName: AXES[state.axis].toLowerCase(),
    xFormat: (v) => (state.axis === "seconds" ? duration(v) : number(v)),
  });
  function draw() {
    reset.hidden = !state.zoom;
    charts.replaceChildren(...[...fixed, ...extra().map((name) => [name, name])].map(chart));
  }
  const set = (key) => (value) => { state[key] = value; if (key === "axis") state.zoom = ""; draw(); };
  const legend = DATA.groups.map((group, i) => {
    const button = el("button", { "aria-pressed": String(!off().has(i)), onclick: () => {
      const hidden = off();
      if (!hidden.delete(i)) hidden.add(i);
      state.off = [...hidden].join(",");
      button.setAttribute("aria-pressed", String(!hidden.has(i)));
      draw();
    } }, el("span", { class: "swatch", style: `background: ${color(i)}` }), group.label + (group.runs.length > 1 ? ` (${group.runs.length} seeds)` : ""));
    return button;
  });
  const also = searcher("also show", set("also"), state.also);
  const add = picker("by name", [["", "–"], ...names.filter((n) => !fixed.some(([known]) => known === n)).map((n) => [n, n])], "", (name) => {
    also.querySelector("input").value = state.also = [state.also, name].filter(Boolean).join(", ");
    draw();
  });
  also.querySelector("input").placeholder = "time/, lr";
  body.append(
    el("div", { class: "controls" },
      segments("against", axes, state.axis, set("axis")),
      several ? segments("band", Object.entries(BANDS), state.band, set("band")) : null,
      picker("smoothing", smooths.map((n) => [n, n === "1" ? "none" : `mean of ${n}`]), state.smooth, set("smooth")),
      segments("scale", [["linear", "linear"], ["log", "log"]], state.scale, set("scale")), also, add, reset,
      saver("Metrics as CSV", () => download("metrics.csv", "text/csv", metricsCsv()))),
    el("div", { class: "controls", role: "group", "aria-label": "Methods shown" }, legend),
    el("p", { class: "lead" }, "Drag over a chart to see a part of all of them; a double click shows all again."), charts);
  draw();
}
