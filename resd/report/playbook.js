// Every lesson a run ever had: when it was born, judged and removed.
const ROWS = 100;
const ORDERS = { born: (e) => e.born, helpful: (e) => -e.helpful, harmful: (e) => -e.harmful, life: (e, end) => e.born - (e.removed ?? end) };

function drawPlaybook() {
  const body = section("playbook");
  const owners = owning((run) => run.playbook.length);
  if (!owners.length) return body.append(el("p", { class: "lead" }, "None of these runs kept a playbook."));
  const numbers = owners.map(([i]) => i);
  const state = view("playbook", { run: numbers[0], search: "", show: "all", order: "born" }, { run: numbers, show: ["all", "alive", "gone"], order: Object.keys(ORDERS) });
  let rows = ROWS;
  const table = el("div");
  const set = (key) => (value) => { state[key] = value; rows = ROWS; draw(); };
  function draw() {
    const run = DATA.runs[state.run];
    const end = Math.max(...run.timeline.steps, 1);
    const entries = run.playbook
      .map((e) => ({ ...e, helpful: tagged(e, "helpful"), harmful: tagged(e, "harmful") }))
      .filter((e) => state.show === "all" || (e.removed === null) === (state.show === "alive"))
      .filter((e) => `${e.id} ${e.section} ${e.text}`.toLowerCase().includes(state.search.toLowerCase()))
      .sort((a, b) => ORDERS[state.order](a, end) - ORDERS[state.order](b, end));
    const alive = run.playbook.filter((e) => e.removed === null).length;
    table.replaceChildren(
      el("p", { class: "lead", role: "status" }, `${run.playbook.length} entries over ${end} updates, ${alive} still there; ${entries.length} shown. `,
        "A line is the life of an entry; ", el("span", { class: "good" }, "▲ helpful"), ", ", el("span", { class: "bad" }, "▼ harmful"), ", × removed."),
      el("table", { class: "entries" },
        el("thead", {}, el("tr", {}, ["Entry", "Lesson", "Helpful", "Harmful", `Updates 1 to ${end}`].map((h) => el("th", { scope: "col", class: h.startsWith("H") ? "number" : null }, h)))),
        el("tbody", {}, entries.slice(0, rows).map((e) => entryRow(e, end, state.run)))),
      entries.length > rows ? el("button", { onclick: () => { rows += ROWS; draw(); } }, `Show more (${entries.length - rows} left)`) : "");
  }
  body.append(el("div", { class: "controls" },
    owners.length > 1 ? picker("run", owners, state.run, (value) => set("run")(Number(value))) : null,
    searcher("search", set("search"), state.search),
    segments("show", [["all", "all"], ["alive", "still there"], ["gone", "removed"]], state.show, set("show")),
    picker("order", [["born", "birth"], ["helpful", "most helpful"], ["harmful", "most harmful"], ["life", "longest life"]], state.order, set("order"))), table);
  draw();
}

const tagged = (entry, tag) => entry.tags.filter(([, kind]) => kind === tag).length;

function attemptLink(run, a, words) {
  return el("button", { class: "link", onclick: () => show("attempts", { run, step: a.step, open: a.id }) }, words);
}

function origins(entry, run) {
  const bore = entry.attempt && DATA.runs[run].attempts.find((a) => a.id === entry.attempt);
  if (bore) return [", from ", attemptLink(run, bore, `attempt ${entry.attempt}`)];
  const from = entry.parents?.length ? entry.parents.join(", ") : entry.attempt ? `attempt ${entry.attempt}` : "";
  return from ? [`, from ${from}`] : [];
}

// Links, made when they are asked for: there may be thousands.
function tagLinks(entry, run) {
  if (!entry.tags.length) return null;
  const list = el("ul", { class: "plain" });
  const make = () => {
    const there = new Map(DATA.runs[run].attempts.map((a) => [a.id, a]));
    const found = entry.tags.filter(([, , id]) => there.has(id));
    list.replaceChildren(...found.map(([step, tag, id]) => el("li", {}, attemptLink(run, there.get(id), `${there.get(id).problem}, update ${step}`), `: ${tag}`)));
    if (found.length < entry.tags.length) list.append(el("li", { class: "soft" }, `${entry.tags.length - found.length} by attempts that are not known here`));
  };
  return el("details", { ontoggle: (event) => event.target.open && make() }, el("summary", {}, `tagged ${entry.tags.length} times`), list);
}

function entryRow(entry, end, run) {
  const fate = entry.removed === null ? "" : `, removed after update ${entry.removed} (${entry.reason || "no reason given"})`;
  return el("tr", { class: entry.removed === null ? "" : "gone" },
    el("td", {}, el("code", {}, entry.id), el("div", { class: "soft" }, String(entry.section || "").replaceAll("_", " "))),
    el("td", { class: "text" }, el("span", { class: "lesson" }, entry.text), el("div", { class: "soft" }, el("small", {}, `born at update ${entry.born}`, origins(entry, run), fate)), tagLinks(entry, run)),
    el("td", { class: "number" }, entry.helpful ? `▲ ${entry.helpful}` : ""),
    el("td", { class: "number" }, entry.harmful ? `▼ ${entry.harmful}` : ""),
    el("td", { class: "life" }, life(entry, end)));
}

function life(entry, end) {
  const x = (step) => 6 + (238 * (step - 1)) / Math.max(1, end - 1);
  const last = entry.removed ?? end;
  const drawing = svg("svg", { width: 250, height: 30, viewBox: "0 0 250 30", role: "img", "aria-label": `update ${entry.born} to ${last}` },
    svg("line", { x1: 6, x2: 244, y1: 15, y2: 15, class: "grid" }),
    svg("line", { x1: x(entry.born), x2: x(last), y1: 15, y2: 15, style: "stroke: var(--soft); stroke-width: 3" }),
    svg("circle", { cx: x(entry.born), cy: 15, r: 3.5, style: "fill: var(--ink)" }));
  for (const [tag, mark, y, style] of [["helpful", "▲", 10, "fill: var(--good)"], ["harmful", "▼", 29, "fill: var(--bad)"]]) {
    for (const step of new Set(entry.tags.filter(([, kind]) => kind === tag).map(([at]) => at))) {
      const count = entry.tags.filter(([at, kind]) => at === step && kind === tag).length;
      drawing.append(svg("text", { x: x(step), y, "text-anchor": "middle", style: `${style}; font-size: 9px` }, mark, svg("title", {}, `${tag} × ${count} at update ${step}`)));
    }
  }
  if (entry.removed !== null) drawing.append(svg("text", { x: x(last), y: 20, "text-anchor": "middle", style: "fill: var(--ink); font-size: 15px" }, "×"));
  return drawing;
}
