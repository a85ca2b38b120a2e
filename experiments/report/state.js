"use strict";
// What there is, which of it is to be seen, and the lines: runs that differ by their seed alone.

const content = JSON.parse(document.getElementById("content").textContent);
const FACETS = ["task", "model", "method", "seed", "status"];
const state = {
  chosen: Object.fromEntries(FACETS.map((name) => [name, new Set()])), // nothing chosen: all
  search: "",
  place: null, // the task and model that plots show
  everyRate: false,
  disagreeing: false,
  everySample: false,
  open: new Set(), // runs whose details are open
  use: null, // what quality along the training is shown over
  sorts: {}, // by table: [column, direction]
};

const unique = (values) => [...new Set(values)];

// full and none are what all others are compared with: ink and grey. Known methods keep their colours in every report.
const INKS = { full: ["#1a1d21", "#f2f3f5"], none: ["#6b727c", "#8d95a0"] };
const COLOURS = [
  ["#145ec1", "#659ff4"], ["#c2460d", "#fb906a"], ["#03823a", "#5ec077"], ["#7e40ac", "#b785e1"], ["#996a06", "#e1a536"],
  ["#0c7d87", "#0dc1d0"], ["#b23471", "#eb80ac"], ["#5d7b02", "#97ba4f"], ["#4635a4", "#918eea"], ["#940022", "#e07a7a"],
];
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "hexagon", "star-square", "cross", "x"];
const USUAL = ["lora", "adapter", "bitfit", "prefix", "ia3", "dora", "prompt", "mam"];
const others = unique(content.runs.map((run) => run.method)).filter((method) => !USUAL.includes(method) && !(method in INKS));
const ORDER = ["none", ...USUAL, ...others.sort(), "full"];

const dark = () => document.documentElement.hasAttribute("data-dark");
const place = (method) => [...USUAL, ...others].indexOf(method);
const colour = (method) => (INKS[method] ?? COLOURS[place(method) % COLOURS.length])[dark() ? 1 : 0];
const symbol = (method) => (method in INKS ? "circle" : SYMBOLS[place(method) % SYMBOLS.length]);
const byMethod = (a, b) => ORDER.indexOf(a.method) - ORDER.indexOf(b.method);
const named = (run) => (run.variant ? `${run.method} ${run.variant}` : run.method);
const short = (item) => { const name = named(item); return name.length > 30 ? `${name.slice(0, 29)}…` : name; }; // in plots

// Every text by which a run can be found.
for (const run of content.runs) {
  const parts = [run.name, run.task, run.model, run.method, run.variant, run.error, run.base, `seed ${run.seed}`, `lr ${run.lr}`];
  const settings = Object.entries(content.configs[run.config]).map(([name, value]) => `${name}=${value}`);
  run.text = [...parts, ...settings, ...Object.values(content.environments[run.environment])].join("\n").toLowerCase();
}

function visible(run) {
  return FACETS.every((name) => !state.chosen[name].size || state.chosen[name].has(String(run[name])))
    && state.search.toLowerCase().split(/\s+/).every((word) => run.text.includes(word));
}

const seen = () => content.runs.filter(visible);
const complete = (run) => run.status === "complete";
const main = (run) => run.numbers.score;

function ratio(run) {
  const { perplexity_before: before, perplexity_after: after } = run.numbers;
  return before && after ? after / before : null;
}

const COSTS = { // what a run costs: its number, its unit, and how an axis shows it
  trainable: { name: "trainable parameters", of: (run) => run.numbers.trainable || null, show: count, log: true, trained: true },
  peak: { name: "peak memory of training", of: (run) => run.numbers.training_peak_bytes, show: bytes, binary: true, trained: true },
  step: { name: "time of a training step", unit: "s", of: (run) => run.numbers.step_s, show: seconds, trained: true },
  bytes: { name: "bytes to store a task", of: (run) => run.numbers.delta_bytes || null, show: bytes, log: true, binary: true, trained: true },
  forgot: { name: "forgetting", unit: "perplexity, after ÷ before", log: true, of: ratio, show: (x) => `× ${round(x, 2)}`, trained: true },
  drift: { name: "drift of features", unit: "1 − cosine, which is no forgetting", of: (run) => run.numbers.feature_drift, show: round, trained: true },
};

function compared(run) {
  const task = content.comparison?.tasks[run.task];
  if (!task || (task.model ?? run.model) !== run.model) return null;
  return task.methods.find((entry) => entry.method === run.method) ?? null;
}

// Means over the seeds that are to be seen. Its bar: the comparison's interval; else ± one standard deviation over seeds;
// else, of one seed, a 95 % interval over the test examples.
function line(runs) {
  const [first] = runs, values = runs.map(main), entry = first.chosen ? compared(first) : null;
  const made = {
    ...Object.fromEntries(["task", "model", "method", "variant", "lr", "metric", "chosen"].map((name) => [name, first[name]])),
    runs, entry, name: named(first), short: short(first), trained: first.parameters.trainable > 0,
    value: mean(values), sd: deviation(values), n: runs.length, share: first.parameters.share,
    validation: mean(runs.map((run) => run.validation?.loss)), low: null, high: null, bar: null,
  };
  for (const [key, cost] of Object.entries(COSTS)) made[key] = made.trained ? mean(runs.map(cost.of)) : null;
  if (entry?.alone === false) Object.assign(made, { peak: null, step: null }); // the machine was shared
  if (entry) Object.assign(made, { value: entry.mean, low: entry.low, high: entry.high, sd: entry.seed_sd, n: entry.n_seeds, bar: "comparison" });
  else if (made.sd != null) Object.assign(made, { low: made.value - made.sd, high: made.value + made.sd, bar: "seeds" });
  else if (first.standard_error != null) {
    const half = 1.96 * first.standard_error;
    Object.assign(made, { low: made.value - half, high: made.value + half, bar: "examples" });
  }
  return made;
}

const BARS = {
  comparison: "the comparison's interval",
  seeds: "± one standard deviation over seeds",
  examples: "for one seed, a 95 % interval over the test examples (the seed's own chance is not in it)",
};
const bars = (made) => unique(made.map((item) => item.bar).filter(Boolean)).map((kind) => BARS[kind]).join("; ");

// All lines that are to be seen, at the rate each method is shown at, or at every rate.
function lines(every = state.everyRate) {
  const groups = new Map();
  for (const run of seen().filter(complete)) {
    if (!every && !run.chosen) continue;
    const key = JSON.stringify([run.task, run.model, run.method, run.variant, run.lr]);
    groups.set(key, [...(groups.get(key) ?? []), run]);
  }
  return [...groups.values()].map(line).sort((a, b) => byMethod(a, b) || (a.lr ?? 0) - (b.lr ?? 0));
}

const placed = (item) => `${item.task} · ${item.model}`;
const places = () => unique(seen().filter(complete).map(placed));
const here = () => { const all = places(); return all.includes(state.place) ? state.place : all[0] ?? null; };
const inPlace = (item) => placed(item) === here();
