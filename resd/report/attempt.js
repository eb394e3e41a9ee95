// One attempt: what was asked, written, judged, reflected on, and what the teacher read.
const outcome = (verdict) => (!verdict ? "lost" : verdict.passed ? "passed" : verdict.error || "wrong answer");

function verdictMark(verdict) {
  const cases = verdict?.cases_total ? ` ${verdict.cases_passed}/${verdict.cases_total}` : "";
  const kind = outcome(verdict);
  const [mark, style] = { passed: ["✓", "good"], lost: ["?", "soft"] }[kind] || ["✗", "bad"];
  return el("span", { class: style }, `${mark} ${kind}${cases}`);
}

const written = (lines, query) => el("pre", {}, found(text(lines) || "", query));
const marks = (verdict) => Object.entries({ reward: verdict.reward, ...verdict.scores }).map(([name, mark]) => `${name} ${number(mark)}`).join(", ");

function attemptView(a, query) {
  const tags = Object.entries(a.reflection?.tags || {});
  const part = (title, ...content) => [el("h4", {}, title), ...content];
  return [
    el("h3", {}, `${a.problem}, update ${a.step} `, verdictMark(a.verdict)),
    ...part("Prompt", written(a.prompt, query)),
    el("div", { class: "pair" },
      el("div", {}, ...part(`Response (${a.tokens ?? "?"} tokens${a.truncated ? ", truncated" : ""})`, ...response(a, query))),
      el("div", {},
        ...(a.verdict ? part(`Feedback (${marks(a.verdict)})`, written(a.verdict.feedback, query)) : []),
        ...(a.reflection ? part("Reflection", written(a.reflection.text, query),
          tags.length ? el("div", { class: "tags" }, tags.map(([id, tag]) => el("span", { class: { helpful: "good", harmful: "bad" }[tag] || "soft" }, `${{ helpful: "▲", harmful: "▼" }[tag] || "·"} ${id} ${tag}`))) : null) : []))),
    ...(a.teacher_prompt ? [el("details", { open: true }, el("summary", {}, "Teacher prompt"), written(a.teacher_prompt, query))] : []),
  ];
}

// Tokens on a background that grows with their distillation loss; losses without texts only get the bars.
function response(a, query) {
  const losses = a.token_loss;
  if (!losses || !losses.length || query) return [written(a.response, query)];
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
