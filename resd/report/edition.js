// The playbook as the teacher read it at one update, and what changed since another one.
function drawEdition() {
  const body = section("edition");
  const owners = owning((run) => run.playbook.length);
  if (!owners.length) return body.append(el("p", { class: "lead" }, "None of these runs kept a playbook."));
  const numbers = owners.map(([i]) => i);
  const state = view("edition", { run: numbers[0], at: -1, since: -1, show: "all" }, { run: numbers, show: ["all", "changed"] });
  const last = () => Math.max(...DATA.runs[state.run].timeline.steps, 0);
  const within = (value, otherwise) => (value < 0 ? Math.max(0, otherwise) : Math.min(value, last()));
  const controls = el("div", { class: "controls" });
  const list = el("div");
  const field = (type, label, value, change) => el("label", {}, label, el("input", { type, min: 0, max: last(), value, oninput: (event) => { if (event.target.value !== "") change(Number(event.target.value)); } }));

  function draw() {
    const run = DATA.runs[state.run];
    const at = within(state.at, last()), since = within(state.since, at - 1);
    for (const input of controls.querySelectorAll("input[max]")) if (input !== document.activeElement) input.value = input.type === "number" && input.dataset.since ? since : at;
    const rows = changes(run, since, at);
    const count = (kind) => rows.filter((row) => row.kind === kind).length;
    const shown = rows.filter((row) => state.show === "all" || row.kind);
    list.replaceChildren(
      el("p", { class: "lead", role: "status" }, `The teacher of update ${at} reads ${rows.length - count("removed")} entries; since update ${since}: ${count("added")} added, ${count("removed")} removed, ${count("tagged")} tagged.`),
      el("ul", { class: "edition" }, shown.map((row) => el("li", { class: row.kind },
        el("span", { class: "sign" }, { added: "+", removed: "−", tagged: "•" }[row.kind] || ""),
        el("code", {}, row.entry.id), el("span", { class: "lesson" }, row.entry.text),
        el("span", { class: "counts" }, tagCount("good", "▲", row.helpful), tagCount("bad", "▼", row.harmful))))));
  }
  function rebuild() {
    const at = field("range", "update", within(state.at, last()), (value) => { state.at = value; draw(); });
    const exact = field("number", "", within(state.at, last()), (value) => { state.at = value; draw(); });
    const since = field("number", "compared with update", within(state.since, last() - 1), (value) => { state.since = value; draw(); });
    exact.querySelector("input").setAttribute("aria-label", "update");
    since.querySelector("input").dataset.since = "yes";
    controls.replaceChildren(
      ...(owners.length > 1 ? [picker("run", owners, state.run, (value) => { [state.run, state.at, state.since] = [Number(value), -1, -1]; rebuild(); })] : []),
      at, exact, since, segments("show", [["all", "all"], ["changed", "changes"]], state.show, (value) => { state.show = value; draw(); }));
    draw();
  }
  body.append(controls, list);
  rebuild();
}

const tagCount = (style, mark, [before, now]) => (now || before ? el("span", { class: style }, `${mark} ${now}${now > before ? ` (+${now - before})` : ""}`) : null);

// The entries that the teacher read at either update, oldest first: what became of each, its tags then and now.
function changes(run, since, at) {
  const shelf = (step) => run.turns.findLast(([from]) => from <= step)?.[1] ?? "";
  const there = (entry, step) => entry.born <= step && (entry.removed === null || entry.removed > step) && entry.shelf === shelf(step);
  const tags = (entry, tag) => [since, at].map((step) => entry.tags.filter(([from, kind]) => kind === tag && from <= step).length);
  return run.playbook.filter((entry) => there(entry, since) || there(entry, at)).map((entry) => {
    const [helpful, harmful] = [tags(entry, "helpful"), tags(entry, "harmful")];
    const tagged = [helpful, harmful].some(([before, now]) => now > before);
    return { entry, helpful, harmful, kind: !there(entry, since) ? "added" : !there(entry, at) ? "removed" : tagged ? "tagged" : "" };
  });
}
