// What went wrong, and when: a strip for each run, with a row for each kind of trouble and a column for each update.
const TROUBLES = [ // the name of a row, the metrics that it sums, its color
  ["alarms", /^alarm\//, "bad"], ["steps skipped, not finite", /^(skipped_steps|update\/not_finite)$/, "bad"],
  ["lost", /\/lost$/, "bad"], ["too long, not asked", /\/too_long$/, "bad"], ["unusable texts", /\/(invalid|cut|thinking_cut)$/, "warn"],
  ["prompts shortened", /^(?!response\/)[^/]+\/truncated$/, "warn"], ["answers cut off", /^response\/truncated$/, "warn"],
];

// Rows of [title, color, marks], a mark being [update, sum, {metric: value}] where something went wrong.
function troubles({ steps, columns }) {
  return TROUBLES.map(([title, pattern, style]) => {
    const names = Object.keys(columns).filter((name) => pattern.test(name) && !/^(part|forgetting)\//.test(name));
    const marks = steps.map((step, i) => {
      const found = names.map((name) => [name, columns[name][i]]).filter(([, value]) => value > 0);
      return [step, found.reduce((sum, [, value]) => sum + value, 0), found];
    });
    return [title, style, marks.filter(([, sum]) => sum > 0)];
  }).filter(([, , marks]) => marks.length);
}

function drawHealth() {
  const body = section("health");
  const runs = DATA.runs.map((run, i) => [run, i, troubles(run.timeline)]);
  const sound = runs.filter(([, , rows]) => !rows.length).map(([run]) => run.name);
  body.append(el("p", { class: "lead" }, "A mark is an update in which something was lost, cut, skipped or alarming; the stronger, the more. Click one to see the attempts of that update."),
    ...runs.filter(([, , rows]) => rows.length).map(([run, i, rows]) => strip(run, i, rows)),
    sound.length ? el("p", {}, el("span", { class: "good" }, "✓ "), `Nothing of the kind: ${sound.join("; ")}.`) : "");
}

function strip(run, index, rows) {
  const end = Math.max(...run.timeline.steps, 1);
  const row = ([title, style, marks]) => {
    const most = Math.max(...marks.map(([, sum]) => sum));
    const line = svg("svg", { viewBox: `0 0 ${end + 1} 1`, preserveAspectRatio: "none", role: "img", "aria-label": `${title}: updates ${marks.map(([step]) => step).join(", ")}` },
      marks.map(([step, sum, found]) => svg("rect", { x: step + 0.04, width: 0.92, y: 0, height: 1, class: style, style: `opacity: ${(0.35 + 0.65 * Math.sqrt(sum / most)).toFixed(2)}`, onclick: () => show("attempts", { run: index, step }) },
        svg("title", {}, `update ${step}: ${found.map(([name, value]) => `${name} ${number(value)}`).join(", ")}`))));
    return el("tr", {}, el("th", { scope: "row" }, title), el("td", { class: "strip" }, line),
      el("td", { class: "soft" }, `${marks.length} update${marks.length > 1 ? "s" : ""}, first ${marks[0][0]}`));
  };
  return el("table", { class: "health" }, el("caption", {}, run.name), el("tbody", {}, rows.map(row)),
    el("tfoot", {}, el("tr", {}, el("td"), el("td", {}, el("div", { class: "ends" }, el("span", {}, "update 0"), el("span", {}, String(end)))), el("td"))));
}
