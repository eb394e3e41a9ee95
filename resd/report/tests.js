// Answers to the test problems: a grid of problems and evaluations, and behind a cell what was written and said.
const GRID_ROWS = 60;
const CELLS = { passed: "✓", some: "", failed: "✗", lost: "?" };
const CHANGES = { all: "all", changed: "changed", never: "never passed", lost: "lost" };

const cellKind = (cell) => (!cell?.[1] ? "lost" : cell[0] === cell[1] ? "passed" : cell[0] ? "some" : "failed");
const cellText = (cell) => (cell?.[1] > 1 ? `${cell[0]}/${cell[1]}` : CELLS[cellKind(cell)]);

function drawTests() {
  const body = section("tests");
  const owners = owning((run) => run.tests.steps.length);
  if (!owners.length) return body.append(el("p", { class: "lead" }, "These runs kept no answers to test problems."));
  const numbers = owners.map(([i]) => i);
  const state = view("tests", { run: numbers[0], beside: "", problem: "", step: -1, other: -1, search: "", show: "all" },
    { run: numbers, beside: ["", ...numbers.map(String)], show: ["all", "differ", ...Object.keys(CHANGES)] });
  let rows = GRID_ROWS;
  const controls = el("div", { class: "controls" });
  const said = el("p", { class: "lead", role: "status" });
  const grid = el("table", { class: "grid-table" });
  const more = el("div");
  const answers = el("div", { class: "pair answers", "aria-live": "polite" });
  const tests = (side) => DATA.runs[side.run].tests;
  const sides = () => [{ key: "step", run: state.run }, ...(state.beside === "" ? [] : [{ key: "other", run: Number(state.beside) }])];
  const kinds = (side, problem) => (tests(side).cells[problem] || []).map(cellKind);
  const latest = (side, problem) => kinds(side, problem).at(-1);
  const wanted = {
    all: () => true,
    changed: (problem) => sides().some((side) => new Set(kinds(side, problem)).size > 1),
    never: (problem) => !sides().some((side) => kinds(side, problem).some((kind) => ["passed", "some"].includes(kind))),
    lost: (problem) => sides().some((side) => kinds(side, problem).includes("lost")),
    differ: (problem) => sides().some((side) => latest(side, problem) !== latest(sides()[0], problem)),
  };

  function choose(problem, key, step) {
    if (problem !== state.problem) for (const side of sides()) {
      state[side.key] = tests(side).steps.includes(step) ? step : tests(side).steps.at(-1);
    }
    [state.problem, state[key]] = [problem, step];
    read();
  }
  function read() {
    for (const button of grid.querySelectorAll("button")) {
      const { problem, key, step } = button.dataset;
      button.setAttribute("aria-pressed", String(problem === state.problem && Number(step) === state[key]));
    }
    answers.replaceChildren(...(state.problem ? sides().map((side) => el("div", {}, answersView(side.run, state[side.key], state.problem, state.search))) : []));
  }
  function cellButton(side, problem, step, cell) {
    const kind = cellKind(cell);
    const told = kind === "lost" ? "lost" : `${cell[0]} of ${cell[1]} passed`;
    return el("button", { class: `cell ${kind}`, "data-problem": problem, "data-key": side.key, "data-step": step, title: `${problem}, update ${step}: ${told}`, onclick: () => choose(problem, side.key, step) }, cellText(cell));
  }
  function draw() {
    const all = [...new Set(sides().flatMap((side) => Object.keys(tests(side).cells)))];
    const query = state.search.toLowerCase();
    const shown = all.filter((problem) => problem.toLowerCase().includes(query) && wanted[state.show](problem));
    said.replaceChildren(`${shown.length} of ${all.length} problems; a column is the evaluation after that update. ✓ passed, ✗ failed, ? lost (no verdict, or never asked); of several answers, how many passed. Click a cell to read.`);
    const heads = sides().map((side) => el("th", { colspan: tests(side).steps.length, scope: "colgroup", class: "over" }, DATA.runs[side.run].name));
    const columns = sides().map((side) => tests(side).steps.map((step, i) => el("th", { scope: "col", class: i ? null : "first" }, String(step))));
    grid.replaceChildren(
      el("thead", {}, heads.length > 1 ? el("tr", {}, el("td"), heads) : null, el("tr", {}, el("th", { scope: "col" }, "Problem"), columns)),
      el("tbody", {}, shown.slice(0, rows).map((problem) => el("tr", {}, el("th", { scope: "row", title: problem }, problem),
        sides().map((side) => tests(side).steps.map((step, i) => el("td", { class: i ? null : "first" }, cellButton(side, problem, step, tests(side).cells[problem]?.[i]))))))));
    more.replaceChildren(...(shown.length > rows ? [el("button", { onclick: () => { rows += GRID_ROWS; draw(); } }, `Show more (${shown.length - rows} left)`)] : []));
    read();
  }
  const set = (key) => (value) => { state[key] = value; draw(); };
  function rebuild() {
    const others = owners.filter(([i]) => i !== state.run);
    if (state.beside === String(state.run)) state.beside = "";
    controls.replaceChildren(
      ...(owners.length > 1 ? [
        picker("run", owners, state.run, (value) => { state.run = Number(value); state.problem = ""; rebuild(); }),
        picker("beside it", [["", "–"], ...others], state.beside, (value) => {
          state.beside = value;
          if (value) state.other = DATA.runs[value].tests.steps.at(-1);
          rebuild();
        })] : []),
      picker("show", [...Object.entries(CHANGES), ...(state.beside === "" ? [] : [["differ", "different in the end"]])], state.show, set("show")),
      searcher("problem", set("search"), state.search));
    draw();
  }
  grid.addEventListener("keydown", (event) => {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] || [0, 0];
    const cell = event.target.closest("td");
    const next = cell && grid.rows[cell.parentNode.rowIndex + down]?.cells[cell.cellIndex + right]?.querySelector("button");
    if (!next || !(down || right)) return;
    event.preventDefault();
    next.focus();
  });
  body.append(controls, said, el("div", { class: "scroll grid-scroll" }, grid), more, answers);
  rebuild();
}

// What a run answered to a problem after update `step`, and what was said about it.
function answersView(run, step, problem, query) {
  const { tests, name } = DATA.runs[run];
  const found = tests.answers.filter((a) => a.step === step && a.problem === problem);
  const cell = tests.cells[problem]?.[tests.steps.indexOf(step)];
  const missing = cell ? "The answer is not in this file, to keep it small; evaluations/ of the run directory has it." : "It was not asked in this evaluation.";
  return [
    el("h3", {}, `${problem}, update ${step} `, el("span", { class: "soft" }, name)),
    ...(found.length ? [el("h4", {}, "Prompt"), written(found[0].prompt, query)] : [el("p", { class: "soft" }, missing)]),
    ...found.flatMap((a, i) => [
      el("h4", {}, found.length > 1 ? `Response ${i + 1} ` : "Response ", `(${a.tokens ?? "?"} tokens${a.truncated ? ", truncated" : ""}) `, verdictMark(a.verdict)),
      written(a.response, query),
      ...(a.verdict ? [el("h4", {}, `Feedback (${marks(a.verdict)})`), written(a.verdict.feedback, query)] : [])]),
  ];
}
