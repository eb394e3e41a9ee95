// All attempts of a run: a list that can be searched, and the one that is open.
const LISTED = 300;
const matches = (a, filter) => filter === "" || (filter === "failed" ? outcome(a.verdict) !== "passed" : outcome(a.verdict) === filter);

const ORDERINGS = { loss: (a) => -meanLoss(a), longest: (a) => -(a.tokens ?? 0), shortest: (a) => a.tokens ?? Infinity };

// Of the tokens whose loss is known; -1 without any, so that such attempts come last.
function meanLoss(a) {
  const known = (a.token_loss || []).filter((loss) => loss !== null);
  return known.length ? known.reduce((sum, loss) => sum + loss, 0) / known.length : -1;
}

// Whether an attempt has a line that holds `query`, or is of a problem whose name does.
function searched(query) {
  if (!query) return () => true;
  const hits = new Set();
  DATA.lines.forEach((line, i) => { if (line.toLowerCase().includes(query)) hits.add(i); });
  const texts = (a) => [a.response, a.verdict?.feedback, a.reflection?.text, a.prompt, a.teacher_prompt];
  return (a) => a.problem.toLowerCase().includes(query) || texts(a).some((lines) => lines?.some((i) => hits.has(i)));
}

function limit(label, value, change) {
  return el("label", {}, label, el("input", { type: "number", step: "any", value, oninput: (event) => change(event.target.value) }));
}

function drawAttempts() {
  const body = section("attempts");
  const owners = owning((run) => run.attempts.length);
  if (!owners.length) return body.append(el("p", { class: "lead" }, "These runs kept no attempts."));
  const controls = el("div", { class: "controls" });
  const said = el("p", { class: "lead", role: "status" });
  const list = el("ul", { class: "list", role: "listbox", tabindex: 0, "aria-label": "Attempts; arrow keys choose" });
  const more = el("div");
  const reading = el("article", { class: "attempt" });
  let state, shown = [], chosen = 0;

  function open(i) {
    chosen = Math.max(0, Math.min(shown.length - 1, i));
    if (chosen >= list.children.length) listUpTo(chosen + LISTED);
    [...list.children].forEach((item, j) => item.setAttribute("aria-selected", String(j === chosen)));
    const item = list.children[chosen];
    if (item) {
      list.setAttribute("aria-activedescendant", item.id);
      list.scrollTop = Math.max(Math.min(list.scrollTop, item.offsetTop - list.offsetTop), item.offsetTop - list.offsetTop + item.offsetHeight - list.clientHeight);
    }
    reading.replaceChildren(...(shown.length ? attemptView(shown[chosen], state.search.toLowerCase()) : [el("p", { class: "soft" }, "No attempt matches.")]));
  }
  function choose(i) {
    open(i);
    if (shown.length) state.open = shown[chosen].id;
  }
  function listUpTo(count) {
    list.append(...shown.slice(list.children.length, count).map((a, i) => item(a, i + list.children.length)));
    const left = shown.length - list.children.length;
    more.replaceChildren(...(left > 0 ? [el("button", { onclick: () => listUpTo(list.children.length + LISTED) }, `List more (${left} left)`)] : []));
  }
  const item = (a, i) => el("li", { role: "option", id: `attempt-${i}`, onclick: () => choose(i) },
    el("span", { class: "soft" }, `${a.step}`), el("span", { class: "what" }, a.problem), fact(a), verdictMark(a.verdict));
  // What they are ordered by.
  const fact = (a) => (!state.order ? null : el("span", { class: "soft" }, state.order !== "loss" ? `${a.tokens ?? "?"} tokens` : a.token_loss ? number(meanLoss(a)) : "–"));
  // An empty field is no limit.
  function rewarded({ verdict }) {
    const [low, high] = [state.low, state.high].map((limit) => (limit === "" ? null : Number(limit)));
    return (low === null && high === null) || (verdict?.reward >= (low ?? -Infinity) && verdict.reward <= (high ?? Infinity));
  }
  function draw() {
    const run = DATA.runs[state.run];
    const holds = searched(state.search.toLowerCase());
    shown = run.attempts.filter((a) => (state.step === "" || a.step === Number(state.step)) && (state.problem === "" || a.problem === state.problem) && matches(a, state.outcome) && rewarded(a) && holds(a));
    if (state.order) {
      const ranks = new Map(shown.map((a) => [a, ORDERINGS[state.order](a)]));
      shown.sort((a, b) => ranks.get(a) - ranks.get(b));
    }
    const left = run.attempts_total - run.attempts.length;
    said.replaceChildren(`${shown.length} of ${run.attempts.length} attempts match.`,
      left > 0 ? ` To keep this file small, ${left} more of this run are not in it (attempts/ of the run directory has all ${run.attempts_total}).` : "");
    list.replaceChildren();
    listUpTo(LISTED);
    open(shown.findIndex((a) => a.id === state.open));
  }
  function rebuild() {
    const numbers = owners.map(([i]) => i);
    const run = DATA.runs[view("attempts", { run: numbers[0] }, { run: numbers }).run];
    const unique = (values) => [...new Set(values)].sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
    const steps = unique(run.attempts.map((a) => a.step));
    const problems = unique(run.attempts.map((a) => a.problem));
    const kinds = unique(run.attempts.map((a) => outcome(a.verdict))).filter((kind) => kind !== "passed");
    const outcomes = ["", "passed", "failed", ...kinds];
    const orders = { ...(run.attempts.some((a) => a.token_loss) ? { loss: "highest loss a token" } : {}), longest: "longest", shortest: "shortest" };
    state = view("attempts", { run: numbers[0], step: steps.length > 1 ? String(steps.at(-1)) : "", problem: "", outcome: "", search: "", low: "", high: "", order: "", open: "" },
      { run: numbers, order: ["", ...Object.keys(orders)], step: ["", ...steps.map(String)], problem: ["", ...problems], outcome: outcomes });
    const count = (filter) => run.attempts.filter((a) => matches(a, filter)).length;
    const set = (key) => (value) => { state[key] = value; draw(); };
    const updates = picker("update", [["", "all"], ...steps.map((s) => [s, s])], state.step, set("step"));
    const search = (query) => {
      if (query && !state.search) updates.querySelector("select").value = state.step = ""; // all of them are meant
      set("search")(query);
    };
    controls.replaceChildren(
      ...(owners.length > 1 ? [picker("run", owners, state.run, (value) => { forget("attempts"); state.run = Number(value); rebuild(); })] : []),
      updates,
      picker("problem", [["", "all"], ...problems.map((p) => [p, p])], state.problem, set("problem")),
      picker("outcome", outcomes.map((f) => [f, `${f || "all"} (${count(f)})`]), state.outcome, set("outcome")),
      limit("reward from", state.low, set("low")), limit("to", state.high, set("high")),
      picker("order", [["", "as they were tried"], ...Object.entries(orders)], state.order, set("order")),
      searcher("search", search, state.search),
      saver("These as JSONL", () => download("attempts.jsonl", "application/jsonl", attemptsJsonl(shown))));
    draw();
  }
  list.addEventListener("keydown", (event) => {
    const target = { ArrowDown: chosen + 1, ArrowUp: chosen - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    choose(target);
  });
  body.append(controls, said, el("div", { class: "viewer" }, el("div", {}, list, more), reading));
  rebuild();
}
