// What is looked at, as files: metrics as CSV, attempts as JSONL, a chart as SVG.
function download(name, type, content) {
  const address = URL.createObjectURL(new Blob([content], { type }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

const saver = (label, make) => el("button", { class: "save", onclick: make }, label);

// A row for each update of each run, a column for each metric of any.
function metricsCsv() {
  const names = [...new Set(DATA.runs.flatMap((run) => Object.keys(run.timeline.columns)))].sort();
  const cell = (value) => (/[",\r\n]/.test(value ?? "") ? `"${String(value).replaceAll('"', '""')}"` : value ?? "");
  const rows = DATA.runs.flatMap(({ name, timeline: t }) => t.steps.map((step, i) => [name, step, t.seconds[i], ...names.map((n) => t.columns[n]?.[i])]));
  return [["run", "update", "seconds", ...names], ...rows].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

// Attempts as a run directory has them, with the texts that this file holds.
function attemptsJsonl(attempts) {
  const whole = (a) => ({
    ...a,
    ...Object.fromEntries(["prompt", "response", "teacher_prompt"].map((key) => [key, text(a[key])])),
    verdict: a.verdict ? { ...a.verdict, feedback: text(a.verdict.feedback) } : null,
    reflection: a.reflection ? { ...a.reflection, text: text(a.reflection.text) } : null,
  });
  return attempts.map((a) => `${JSON.stringify(whole(a))}\n`).join("");
}

// The drawing with its colors written out, and above it what it shows: a file knows nothing of this page's style.
function chartSvg(drawing, title, series) {
  const copy = drawing.cloneNode(true);
  const looks = ["fill", "stroke", "stroke-width", "stroke-dasharray", "opacity", "font-size"];
  const [before, after] = [drawing, copy].map((each) => [...each.querySelectorAll("*")]);
  before.forEach((each, i) => {
    const style = getComputedStyle(each);
    after[i].setAttribute("style", looks.map((look) => `${look}: ${style.getPropertyValue(look)}`).join("; "));
  });
  after.filter((each) => each.getAttribute("visibility") === "hidden").forEach((each) => each.remove());
  const heading = [[title, getComputedStyle(drawing).color], ...series.map((s) => [s.label, getComputedStyle(drawing.querySelector(`[data-series="${s.index}"]`)).stroke])];
  const top = 16 * heading.length;
  heading.forEach(([words, fill], i) => copy.append(svg("text", { x: 4, y: 12 - top + 16 * i, style: `fill: ${fill}; font-size: 12px` }, words)));
  copy.setAttribute("viewBox", `0 ${-top} ${BOX.width} ${BOX.height + top}`);
  copy.setAttribute("font-family", "sans-serif");
  for (const name of ["tabindex", "role", "aria-label"]) copy.removeAttribute(name);
  return new XMLSerializer().serializeToString(copy);
}
