// One attempt at a time: what was asked, written, judged, reflected on, and what the teacher read.
const LISTED = 300;
const outcome = (verdict) => (!verdict ? "lost" : verdict.passed ? "passed" : verdict.error || "wrong answer");
const matches = (a, filter) => filter === "" || (filter === "failed" ? outcome(a.verdict) !== "passed" : outcome(a.verdict) === filter);

// Whether an attempt has a line that holds `query`, or is of a problem whose name does.
function searched(query) {
  if (!query) return () => true;
  const hits = new Set();
  DATA.lines.forEach((line, i) => { if (line.toLowerCase().includes(query)) hits.add(i); });
  const texts = (a) => [a.response, a.verdict?.feedback, a.reflection?.text, a.prompt, a.teacher_prompt];
  return (a) => a.problem.toLowerCase().includes(query) || texts(a).some((lines) => lines?.some((i) => hits.has(i)));
}

function verdictMark(verdict) {
  const cases = verdict?.cases_total ? ` ${verdict.cases_passed}/${verdict.cases_total}` : "";
  const kind = outcome(verdict);
  const [mark, style] = { passed: ["✓", "good"], lost: ["?", "soft"] }[kind] || ["✗", "bad"];
  return el("span", { class: style }, `${mark} ${kind}${cases}`);
}

function drawAttempts() {
  const body = section("attempts");
  const owners = DATA.runs.map((run, i) => [i, run.name]).filter(([i]) => DATA.runs[i].attempts.length);
  if (!owners.length) return body.append(el("p", { class: "lead" }, "These runs kept no attempts."));
  const state = { run: owners[0][0], step: "", problem: "", filter: "", query: "", chosen: 0, listed: LISTED };
  const controls = el("div", { class: "controls" });
  const said = el("p", { class: "lead", role: "status" });
  const list = el("ul", { class: "list", role: "listbox", tabindex: 0, "aria-label": "Attempts; arrow keys choose" });
  const more = el("div");
  const view = el("article", { class: "attempt" });
  let shown = [];

  function choose(i) {
    state.chosen = Math.max(0, Math.min(shown.length - 1, i));
    if (state.chosen >= state.listed) listUpTo(state.chosen + LISTED);
    [...list.children].forEach((item, j) => item.setAttribute("aria-selected", String(j === state.chosen)));
    const item = list.children[state.chosen];
    if (item) {
      list.setAttribute("aria-activedescendant", item.id);
      list.scrollTop = Math.max(Math.min(list.scrollTop, item.offsetTop - list.offsetTop), item.offsetTop - list.offsetTop + item.offsetHeight - list.clientHeight);
    }
    view.replaceChildren(...(shown.length ? attemptView(shown[state.chosen], state.query) : [el("p", { class: "soft" }, "No attempt matches.")]));
  }
  function listUpTo(count) {
    state.listed = count;
    list.append(...shown.slice(list.children.length, count).map((a, i) => item(a, i + list.children.length)));
    const left = shown.length - list.children.length;
    more.replaceChildren(...(left > 0 ? [el("button", { onclick: () => listUpTo(state.listed + LISTED) }, `List more (${left} left)`)] : []));
  }
  const item = (a, i) => el("li", { role: "option", id: `attempt-${i}`, onclick: () => choose(i) },
    el("span", { class: "soft" }, `${a.step}`), el("span", { class: "what" }, a.problem), verdictMark(a.verdict));
  function draw() {
    const run = DATA.runs[state.run];
    const holds = searched(state.query);
    shown = run.attempts.filter((a) => (state.step === "" || a.step === Number(state.step)) && (state.problem === "" || a.problem === state.problem) && matches(a, state.filter) && holds(a));
    const left = run.attempts_total - run.attempts.length;
    said.replaceChildren(`${shown.length} of ${run.attempts.length} attempts match.`,
      left > 0 ? ` To keep this file small, ${left} more of this run are not in it (attempts/ of the run directory has all ${run.attempts_total}).` : "");
    list.replaceChildren();
    listUpTo(LISTED);
    choose(0);
  }
  function rebuild() {
    const run = DATA.runs[state.run];
    const unique = (values) => [...new Set(values)].sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
    const steps = unique(run.attempts.map((a) => a.step));
    Object.assign(state, { step: steps.length > 1 ? steps.at(-1) : "", problem: "", filter: "", query: "" });
    const count = (filter) => run.attempts.filter((a) => matches(a, filter)).length;
    const kinds = unique(run.attempts.map((a) => outcome(a.verdict))).filter((kind) => kind !== "passed");
    const filters = ["", "passed", "failed", ...kinds].map((f) => [f, `${f || "all"} (${count(f)})`]);
    const set = (key) => (value) => { state[key] = value; draw(); };
    const updates = picker("update", [["", "all"], ...steps.map((s) => [s, s])], state.step, set("step"));
    const search = (query) => {
      if (query && !state.query) updates.querySelector("select").value = state.step = ""; // all of them are meant
      set("query")(query);
    };
    controls.replaceChildren(
      ...(owners.length > 1 ? [picker("run", owners, state.run, (value) => { state.run = Number(value); rebuild(); })] : []),
      updates,
      picker("problem", [["", "all"], ...unique(run.attempts.map((a) => a.problem)).map((p) => [p, p])], "", set("problem")),
      picker("outcome", filters, "", set("filter")),
      searcher("search", search));
    draw();
  }
  list.addEventListener("keydown", (event) => {
    const target = { ArrowDown: state.chosen + 1, ArrowUp: state.chosen - 1, Home: 0, End: shown.length - 1 }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    choose(target);
  });
  body.append(controls, said, el("div", { class: "viewer" }, el("div", {}, list, more), view));
  rebuild();
}

function attemptView(a, query) {
  const tags = Object.entries(a.reflection?.tags || {});
  const part = (title, ...content) => [el("h4", {}, title), ...content];
  const marks = Object.entries({ reward: a.verdict?.reward, ...a.verdict?.scores }).map(([name, mark]) => `${name} ${number(mark)}`).join(", ");
  const written = (lines) => el("pre", {}, found(text(lines) || "", query));
  return [
    el("h3", {}, `${a.problem}, update ${a.step} `, verdictMark(a.verdict)),
    ...part("Prompt", written(a.prompt)),
    el("div", { class: "pair" },
      el("div", {}, ...part(`Response (${a.tokens ?? "?"} tokens${a.truncated ? ", truncated" : ""})`, ...response(a, query))),
      el("div", {},
        ...(a.verdict ? part(`Feedback (${marks})`, written(a.verdict.feedback)) : []),
        ...(a.reflection ? part("Reflection", written(a.reflection.text),
          tags.length ? el("div", { class: "tags" }, tags.map(([id, tag]) => el("span", { class: { helpful: "good", harmful: "bad" }[tag] || "soft" }, `${{ helpful: "▲", harmful: "▼" }[tag] || "·"} ${id} ${tag}`))) : null) : []))),
    ...(a.teacher_prompt ? [el("details", { open: true }, el("summary", {}, "Teacher prompt"), written(a.teacher_prompt))] : []),
  ];
}

// Tokens on a background that grows with their distillation loss; losses without texts only get the bars.
function response(a, query) {
  const losses = a.token_loss;
  if (!losses || !losses.length || query) return [el("pre", {}, found(text(a.response) || "", query))];
  const top = Math.max(...losses.map((v) => Math.abs(v ?? 0)), 1e-9);
  const texts = a.token_text && a.token_text.length === losses.length ? a.token_text : null;
  const heat = (v) => `background: rgba(var(--heat), ${(0.85 * Math.sqrt(Math.abs(v ?? 0) / top)).toFixed(3)})`;
  const tokens = texts && texts.map((t, i) => el("span", { class: "token", style: heat(losses[i]), title: `${number(losses[i])} nats` }, t));
  const width = 600 / losses.length;
  const bars = losses.map((v, i) => svg("rect", { x: i * width, width: Math.max(0.5, width - 0.6), y: 44 - (42 * Math.abs(v ?? 0)) / top, height: (42 * Math.abs(v ?? 0)) / top, style: "fill: rgb(var(--heat))" }, svg("title", {}, `token ${i + 1}${texts ? ` “${texts[i]}”` : ""}: ${number(v)}`)));
  return [el("pre", {}, tokens || text(a.response) || ""),
    el("small", { class: "soft" }, "distillation loss of a token: 0", el("span", { class: "scale" }), number(top)),
    svg("svg", { viewBox: "0 0 600 46", width: "100%", height: 46, preserveAspectRatio: "none", role: "img", "aria-label": "Distillation loss along the response" }, bars)];
}
