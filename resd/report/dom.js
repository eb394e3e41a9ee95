"use strict";
// Elements are built from text nodes only, never from markup: what a model wrote is shown, not interpreted.
let DATA;
const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (name, attributes = {}, ...children) => fill(document.createElement(name), attributes, children);
const svg = (name, attributes = {}, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

const text = (lines) => (lines === null || lines === undefined ? null : lines.map((i) => DATA.lines[i]).join("\n"));
const color = (i) => `var(--s${(i % 8) + 1})`;
const dash = (i) => ["", "6 3", "2 3", "8 3 2 3"][Math.floor(i / 8) % 4];

let names = 0;
function segments(label, options, value, change) {
  const name = `choice-${++names}`;
  const inputs = options.map(([key, shown]) =>
    el("label", {}, el("input", { type: "radio", name, value: key, checked: key === value, onchange: () => change(key) }), shown));
  return el("fieldset", {}, el("legend", {}, label), el("div", { class: "segments" }, inputs));
}

function picker(label, options, value, change) {
  const choices = options.map(([key, shown]) => el("option", { value: key, selected: String(key) === String(value) }, shown));
  return el("label", {}, label, el("select", { onchange: (event) => change(event.target.value) }, choices));
}

function searcher(label, change, value = "") {
  return el("label", {}, label, el("input", { type: "search", value, oninput: (event) => change(event.target.value) }));
}

// Numbers and names of the runs that have something.
const owning = (has) => DATA.runs.map((run, i) => [i, run.name]).filter(([i]) => has(DATA.runs[i]));

// `content` with what is searched for marked.
function found(content, query) {
  if (!query) return content;
  const exactly = query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&");
  return content.split(new RegExp(`(${exactly})`, "gi")).map((part, i) => (i % 2 ? el("mark", {}, part) : part));
}

// The empty place of a part of the page; what was drawn there before is gone.
function section(id) {
  const whole = document.getElementById(id);
  whole.querySelector(":scope > .drawn")?.remove();
  const body = el("div", { class: "drawn" });
  whole.append(body);
  return body;
}

function number(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(1);
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(3)));
}
const percent = (value) => `${Number((100 * value).toFixed(1))} %`;
function duration(seconds) {
  if (seconds >= 7200) return `${number(seconds / 3600)} h`;
  return seconds >= 120 ? `${number(seconds / 60)} min` : `${number(seconds)} s`;
}
