// One problem through its updates: what changed in the response, what came back, what was learned from it.
function drawTrace() {
  const body = section("trace");
  const owners = owning((run) => Object.keys(run.traces).length);
  if (!owners.length) return body.append(el("p", { class: "lead" }, "No problem got better while these runs were watching it."));
  const reflects = ([i]) => Object.values(DATA.runs[i].traces).flat().some((item) => item.reflection);
  const telling = (owners.find(reflects) || owners[0])[0];
  const state = view("trace", { run: telling, problem: "" }, { run: owners.map(([i]) => i) });
  const controls = el("div", { class: "controls" });
  const reading = el("div");
  const draw = () => reading.replaceChildren(...traceView(DATA.runs[state.run].traces[state.problem || Object.keys(DATA.runs[state.run].traces)[0]]));
  function rebuild() {
    const problems = Object.keys(DATA.runs[state.run].traces);
    if (state.problem && !problems.includes(state.problem)) state.problem = "";
    controls.replaceChildren(
      ...(owners.length > 1 ? [picker("run", owners, state.run, (value) => { state.run = Number(value); rebuild(); })] : []),
      picker("problem", problems.map((p) => [p, p]), state.problem, (value) => { state.problem = value; draw(); }));
    draw();
  }
  body.append(el("p", { class: "lead" }, "Problems that failed when first met and did better later. With several rollouts the best one of the update is shown; lines are compared with the update before."), controls, reading);
  rebuild();
}

function traceView(items) {
  const part = (title, content) => (content ? [el("h4", {}, title), content] : []);
  const block = (value) => (value ? el("pre", {}, value) : null);
  return [el("h4", {}, "Prompt"), el("pre", {}, items[0].prompt), el("ol", { class: "steps" }, items.map((item, i) => {
    const several = item.group > 1 ? ` · ${item.passed} of ${item.group} rollouts passed` : "";
    const added = item.added.map((e) => el("li", {}, el("code", {}, e.id), ` ${e.text}`));
    if (item.more) added.push(el("li", { class: "soft" }, `and ${item.more} more`));
    return el("li", { class: item.verdict.passed ? "passed" : "" },
      el("h3", {}, `Update ${item.step} `, verdictMark(item.verdict), el("span", { class: "soft" }, several)),
      el("div", { class: "pair" },
        el("div", {}, el("h4", {}, i ? "Response, changes" : "Response"), el("pre", { class: "diff" }, item.diff.map(([sign, line]) =>
          el("span", { class: { "+": "plus", "-": "minus" }[sign] || "" }, i ? `${sign} ${line}` : line)))),
        el("div", {}, ...part("Feedback", block(item.feedback)), ...part("Reflection", block(item.reflection)),
          ...part("Playbook gained in this update, from all problems", added.length ? el("ul", { class: "plain" }, added) : null))));
  }))];
}
