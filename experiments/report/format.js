"use strict";
// Numbers with their units, and elements made without ever reading a text as HTML.

const MISSING = "–";

const round = (x, digits = 3) => (x == null ? MISSING : x.toFixed(digits).replace("-", "−"));

function bytes(count) {
  if (count == null) return MISSING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let power = 0;
  while (count >= 1024 && power < units.length - 1) { count /= 1024; power += 1; }
  return `${count >= 100 || power === 0 ? count.toFixed(0) : count.toPrecision(3)} ${units[power]}`;
}

function count(n) {
  if (n == null) return MISSING;
  for (const [size, unit] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (n >= size) return `${(n / size).toPrecision(3)} ${unit}`;
  return String(Number(n.toPrecision(3)));
}

function seconds(s) {
  if (s == null) return MISSING;
  if (s < 1) return `${(s * 1000).toPrecision(3)} ms`;
  if (s < 120) return `${s.toPrecision(3)} s`;
  return s < 7200 ? `${(s / 60).toFixed(1)} min` : `${(s / 3600).toFixed(1)} h`;
}

function rate(lr) {
  if (lr == null) return MISSING;
  return lr >= 0.001 && lr < 1000 ? String(Number(lr.toPrecision(3))) : lr.toExponential().replace("e-", "e−");
}

const percent = (share, digits = 2) => (share == null ? MISSING : `${(share * 100).toFixed(digits)} %`);
const signed = (x, digits = 3) => (x == null ? MISSING : `${x > 0 ? "+" : x < 0 ? "−" : "±"}${Math.abs(x).toFixed(digits)}`);
const words = (name) => String(name).replaceAll("_", " ");

const known = (values) => values.filter((value) => value != null && Number.isFinite(value));

function mean(values) {
  const numbers = known(values);
  return numbers.length ? numbers.reduce((sum, value) => sum + value, 0) / numbers.length : null;
}

function deviation(values) {
  const numbers = known(values), middle = mean(numbers);
  if (numbers.length < 2) return null;
  return Math.sqrt(numbers.reduce((sum, value) => sum + (value - middle) ** 2, 0) / (numbers.length - 1));
}

// An element; strings among the children become text, so that nothing a run has said can act.
function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "line", "circle", "rect", "title"].includes(tag);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style") element.style.cssText = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child != null && child !== false));
  return element;
}

// plotly.js reads <b>, <a href> and the like in its texts.
const inPlot = (text) => String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
