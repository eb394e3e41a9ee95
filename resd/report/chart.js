// A line chart with bands; `reach` is the least and greatest of the n values behind a mean. A series is {label, index, points: [{x, mean, low, high, reach, n}], lines: [[{x, mean}]]}; `zoom` is the part of x that is shown.
const BOX = { width: 380, height: 214, left: 46, right: 12, top: 12, bottom: 34 };

function ticks(low, high, count) {
  const raw = (high - low) / count || 1;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) found.push(i * step);
  return found;
}

// Powers of ten between two values with steps between them, at most six; within a factor of ten as on a linear axis.
function logTicks(low, high) {
  if (high / low < 10) return ticks(low, high, 4);
  const first = Math.floor(Math.log10(low));
  const powers = Array.from({ length: Math.ceil(Math.log10(high)) - first + 1 }, (_, i) => 10 ** (first + i));
  const found = powers.flatMap((power) => (high / low > 1000 ? [1] : [1, 2, 5]).map((factor) => factor * power)).filter((v) => v >= low && v <= high);
  return found.filter((_, i) => i % Math.ceil(found.length / 6) === 0);
}

function extent(series, isPercent, isLog) {
  const all = series.flatMap((s) => s.points.flatMap((p) => [...p.reach, p.mean])).filter((v) => !isLog || v > 0);
  let [low, high] = [Math.min(...all), Math.max(...all)];
  if (isLog) return [low / 1.1, high * 1.1];
  if (low >= 0 && (isPercent || low < 0.6 * high)) low = 0;
  if (isPercent) high = Math.min(1, Math.max(high * 1.12, 0.01));
  const pad = (high - low || Math.abs(high) || 1) * 0.06;
  return [low === 0 ? 0 : low - pad, isPercent ? high : high + pad];
}

// From a range of values to one of pixels, linear in the values or their logarithms.
function scale([low, high], [from, to], isLog) {
  const f = isLog ? Math.log10 : (v) => v;
  return (v) => from + ((f(v) - f(low)) / (f(high) - f(low) || 1)) * (to - from);
}

function lineChart({ title, name, series, isPercent, isLog, zoom, zoomed, xName, xFormat }) {
  const inside = (points) => points.filter((p) => !zoom || (p.x >= zoom[0] && p.x <= zoom[1]));
  const near = series.map((s) => ({ ...s, points: inside(s.points), lines: s.lines.map(inside) }));
  const log = isLog && near.some((s) => s.points.some((p) => p.mean > 0));
  const there = (points) => (log ? points.filter((p) => p.mean > 0) : points);
  const shown = near.map((s) => ({ ...s, points: there(s.points), lines: s.lines.map(there) })).filter((s) => s.points.length);
  const format = isPercent ? percent : number;
  const caption = el("figcaption", {}, isPercent ? `${title} (%)` : title, title === name ? null : el("code", {}, name));
  if (!shown.length) return el("figure", { class: "chart", ondblclick: () => zoomed(null) }, caption, el("p", { class: "soft" }, "Nothing to show for the methods and the part chosen."));
  const [low, high] = extent(shown, isPercent, log);
  const xs = [...new Set(shown.flatMap((s) => s.points.map((p) => p.x)))].sort((a, b) => a - b);
  const [first, last] = zoom || [Math.min(0, xs[0]), xs[xs.length - 1] || 1];
  const x = scale([first, last], [BOX.left, BOX.width - BOX.right]);
  const y = scale([low, high], [BOX.height - BOX.bottom, BOX.top], log);
  const held = (v) => y(Math.min(high, Math.max(low, v)));
  const path = (points) => points.map((p, i) => `${i ? "L" : "M"}${x(p.x).toFixed(1)} ${held(p.mean).toFixed(1)}`).join("");
  const root = svg("svg", {
    viewBox: `0 0 ${BOX.width} ${BOX.height}`, tabindex: 0, role: "img",
    "aria-label": `${title}. ${shown.map((s) => `${s.label}: last ${format(s.points.at(-1).mean)}`).join("; ")}. Arrow keys read values.`,
  });
  for (const value of log ? logTicks(low, high) : ticks(low, high, 4)) {
    root.append(svg("line", { class: "grid", x1: BOX.left, x2: BOX.width - BOX.right, y1: y(value), y2: y(value) }),
      svg("text", { x: BOX.left - 5, y: y(value) + 4, "text-anchor": "end" }, format(value).replace(" %", "")));
  }
  for (const value of ticks(first, last, 5)) {
    root.append(svg("text", { x: x(value), y: BOX.height - 18, "text-anchor": "middle" }, xFormat(value)));
  }
  root.append(svg("text", { x: BOX.width - BOX.right, y: BOX.height - 4, "text-anchor": "end" }, xName));
  for (const s of shown) {
    const banded = s.points.filter((p) => p.high > p.low);
    if (banded.length) {
      const upper = banded.map((p) => `${x(p.x).toFixed(1)},${held(p.high).toFixed(1)}`);
      const lower = banded.map((p) => `${x(p.x).toFixed(1)},${held(p.low).toFixed(1)}`).reverse();
      root.append(svg("polygon", { points: [...upper, ...lower].join(" "), style: `fill: ${color(s.index)}; opacity: .16` }));
    }
    const stroke = `stroke: ${color(s.index)}; fill: none; stroke-dasharray: ${dash(s.index) || "none"}; stroke-linejoin: round;`;
    for (const line of s.lines) root.append(svg("path", { d: path(line), style: `${stroke} stroke-width: 1; opacity: .45` }));
    root.append(svg("path", { d: path(s.points), "data-series": s.index, style: `${stroke} stroke-width: 2` }));
    if (s.points.length <= 30) root.append(...s.points.map((p) => marker(s.index, x(p.x), held(p.mean))));
  }
  caption.append(saver("SVG", () => download(`${name.replace(/[^\w.@-]+/g, "_")}.svg`, "image/svg+xml", chartSvg(root, title, shown))));
  return el("figure", { class: "chart" }, caption, root, reading(root, { shown, xs, x, format, xName, xFormat }), dragging(root, [first, last], zoomed));
}

function marker(index, x, y) {
  const shapes = [[], [0, -4, 4, 0, 0, 4, -4, 0], [-3, -3, 3, -3, 3, 3, -3, 3], [0, -4, 4, 3, -4, 3]];
  const corners = shapes[index % 4];
  const style = `fill: ${color(index)}`;
  if (!corners.length) return svg("circle", { cx: x, cy: y, r: 2.7, style });
  return svg("polygon", { points: corners.map((c, i) => c + (i % 2 ? y : x)).map((c) => c.toFixed(1)).join(" "), style });
}

// The cross-hair: follows the pointer, or the arrow keys when the chart has the focus.
function reading(root, { shown, xs, x, format, xName, xFormat }) {
  const cross = svg("line", { class: "cross", y1: BOX.top, y2: BOX.height - BOX.bottom, visibility: "hidden" });
  const tip = el("div", { class: "tip", hidden: true, role: "status" });
  root.append(cross);
  let at = -1;
  const show = (i) => {
    at = Math.max(0, Math.min(xs.length - 1, i));
    const rows = shown.map((s) => {
      if (xs[at] < s.points[0].x || xs[at] > s.points.at(-1).x) return null;
      const p = s.points.reduce((best, point) => (Math.abs(point.x - xs[at]) < Math.abs(best.x - xs[at]) ? point : best));
      const half = p.high > p.low ? ` (${format(p.low)} to ${format(p.high)}, ${p.n} runs)` : "";
      return el("div", {}, el("span", { class: "swatch", style: `background: ${color(s.index)}` }), `${s.label}: ${format(p.mean)}${half}`);
    });
    tip.replaceChildren(el("div", { class: "soft" }, `${xName} ${xFormat(xs[at])}`), ...rows.filter(Boolean));
    tip.hidden = false;
    const place = x(xs[at]);
    const share = (100 * place) / BOX.width;
    tip.style.cssText = `top: 2.2rem; ${share > 50 ? `right: ${102 - share}%` : `left: ${share + 2}%`}`;
    for (const end of ["x1", "x2"]) cross.setAttribute(end, place);
    cross.setAttribute("visibility", "visible");
  };
  const hide = () => { tip.hidden = true; cross.setAttribute("visibility", "hidden"); };
  root.addEventListener("pointermove", (event) => {
    const box = root.getBoundingClientRect();
    const place = ((event.clientX - box.left) / box.width) * BOX.width;
    show(xs.reduce((best, value, i) => (Math.abs(x(value) - place) < Math.abs(x(xs[best]) - place) ? i : best), 0));
  });
  root.addEventListener("pointerleave", hide);
  root.addEventListener("blur", hide);
  root.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move) return;
    event.preventDefault();
    show(at < 0 && move < 0 ? xs.length - 1 : at + move);
  });
  return tip;
}

// Drag over a part to see it alone, double click to see all.
function dragging(root, [first, last], zoomed) {
  const box = svg("rect", { class: "part", y: BOX.top, height: BOX.height - BOX.top - BOX.bottom, visibility: "hidden" });
  const [left, right] = [BOX.left, BOX.width - BOX.right];
  const place = (event) => {
    const { left: start, width } = root.getBoundingClientRect();
    return Math.min(right, Math.max(left, ((event.clientX - start) / width) * BOX.width));
  };
  let from = null;
  const end = (event) => {
    const ends = [from, place(event)].sort((a, b) => a - b);
    const dragged = from !== null && ends[1] - ends[0] > 8;
    from = null;
    box.setAttribute("visibility", "hidden");
    if (dragged) zoomed(ends.map(scale([left, right], [first, last])));
  };
  root.addEventListener("pointerdown", (event) => { if (event.button === 0) from = place(event); });
  root.addEventListener("pointermove", (event) => {
    if (from === null) return;
    box.setAttribute("x", Math.min(from, place(event)));
    box.setAttribute("width", Math.abs(place(event) - from));
    box.setAttribute("visibility", "visible");
  });
  root.addEventListener("pointerup", end);
  root.addEventListener("pointerleave", end);
  root.addEventListener("dblclick", () => zoomed(null));
  root.append(box);
}
