"use strict";
// The comparison: a table for each task and model, best first, with intervals on one scale, letters, and what it costs.

function comparison() {
  const all = lines(), tried = lines(true).some((made) => !made.chosen);
  const parts = places().map((where) => {
    const made = all.filter((item) => placed(item) === where);
    if (!made.length) return null;
    const [first] = made;
    const head = make("h3", {}, first.task, " ", make("small", {}, `${first.model} · ${words(first.metric)} on ${count(first.runs[0].n_test)} test examples`));
    return [head, table(`comparison-${where}`, comparisonColumns(made), made, { caption: `Comparison on ${where}`, start: ["value", -1] }), pairs(first), remarks(first)];
  });
  return [
    note(all),
    tried ? check("every learning rate", "everyRate") : null,
    ...(all.length ? parts : [empty("No complete run fits the filters.")]),
    ...(content.comparison?.across ?? []).map(together),
  ];
}

// All tasks of a comparison: interquartile means, and how likely a run of one method is better than one of another.
function together(across, number) {
  const range = (item, digits = 3) => `${round(item.low, digits)} to ${round(item.high, digits)}`;
  const methods = [
    { key: "method", head: "method", text: true, always: true, of: (item) => item.method, cell: (item) => [dot(item.method), item.method] },
    { key: "iqm", head: "interquartile mean", unit: "0 untouched, 1 best", of: (item) => item.iqm, cell: (item) => make("span", { class: "main" }, round(item.iqm)) },
    { key: "low", head: "interval", unit: "new seeds", of: (item) => item.low, cell: (item) => range(item) },
    { key: "n", head: "runs", of: (item) => item.n_runs, cell: (item) => String(item.n_runs) },
  ];
  const better = [
    { key: "a", head: "method", text: true, of: (pair) => pair.a, cell: (pair) => [dot(pair.a), pair.a] },
    { key: "b", head: "over", text: true, of: (pair) => pair.b, cell: (pair) => [dot(pair.b), pair.b] },
    { key: "probability", head: "probability of improvement", of: (pair) => pair.probability, cell: (pair) => round(pair.probability, 2) },
    { key: "low", head: "interval", of: (pair) => pair.low, cell: (pair) => range(pair, 2) },
  ];
  return make("div", {},
    make("h3", {}, "All tasks together ", make("small", {}, across.tasks.join(" · "))),
    table(`across-${number}`, methods, across.methods, { caption: "All tasks together" }),
    make("details", { class: "under", "data-keep": `improvement-${number}` }, make("summary", {}, "Probability of improvement, every pair"),
      table(`improvement-${number}`, better, across.improvement, { caption: "Probability of improvement" })));
}

function note(made) {
  const said = ["Best first; click a column's head to sort."];
  if (bars(made)) said.push(`Intervals: ${bars(made)}.`);
  if (made.some((item) => item.entry))
    said.push("Methods that share a letter are not told apart: a test over seeds and examples, Holm-corrected over all pairs. ↓ names the baselines that a method is below. The comparison covers all its seeds, whatever the seed filter shows.");
  else if (content.runs.some((run) => !run.chosen))
    said.push("Each method is shown at the learning rate with the most seeds, then with the lowest validation loss.");
  return make("p", { class: "note" }, said.join(" "));
}

function comparisonColumns(made) {
  const metric = made[0].metric, quality = unique(made.flatMap((item) => Object.keys(item.runs[0].quality))).filter((name) => name !== metric);
  const cost = (key, head, unit) => ({ key, head, unit, of: (item) => item[key], cell: (item) => COSTS[key].show(item[key]) });
  return [
    { key: "method", head: "method", text: true, always: true, of: (item) => item.name, cell: (item) => [method(item), item.entry?.baseline ? make("span", { class: "soft" }, " baseline") : null] },
    { key: "value", head: words(metric), unit: "mean", always: true, of: (item) => item.value, cell: (item) => make("span", { class: "main" }, round(item.value)) },
    { key: "interval", head: "interval", unit: scaleText(made), of: (item) => item.low, cell: (item) => interval(item, made) },
    { key: "group", head: "letters", text: true, of: (item) => item.entry?.group, cell: (item) => [...(item.entry?.group ?? "")].map((letter) => make("span", { class: "tie" }, letter)) },
    { key: "below", head: "below", title: "Baselines, which fine-tune nothing, with a higher mean", text: true, of: (item) => item.entry?.below?.join(" ") || null, cell: (item) => (item.entry?.below ?? []).map((name) => `↓ ${name} `) },
    { key: "share", head: "of full SFT", of: (item) => item.entry?.share_of_full, cell: (item) => percent(item.entry?.share_of_full, 1) },
    { key: "sd", head: "seed spread", unit: "std. dev.", of: (item) => item.sd, cell: (item) => round(item.sd) },
    { key: "n", head: "seeds", of: (item) => item.n, cell: (item) => String(item.n) },
    ...quality.map((name) => ({
      key: `quality-${name}`, head: words(name), unit: "mean",
      of: (item) => mean(item.runs.map((run) => run.quality[name])), cell: (item) => round(mean(item.runs.map((run) => run.quality[name]))),
    })),
    { key: "lr", head: "lr", title: "Learning rate", of: (item) => item.lr, cell: rateCell },
    { key: "trainable", head: "trainable", unit: "parameters", of: (item) => item.trainable, cell: (item) => (item.trained ? [count(item.trainable), make("span", { class: "soft" }, ` ${percent(item.share)}`)] : MISSING) },
    cost("bytes", "stored", "per task"),
    cost("peak", "peak memory", "of training"),
    cost("step", "step", "median time"),
    cost("forgot", "forgetting", "perplexity, after ÷ before"),
    cost("drift", "drift", "of features, no forgetting"),
    ...[["forgets alike", "forget", (entry) => entry.forgot], ["as fast", "take for a step", (entry) => entry.cost?.step_s], ["as lean", "take of memory", (entry) => entry.cost?.training_peak_bytes]].map(([head, what, of]) => ({
      key: head, head, title: `Methods that share a letter are not told apart in what they ${what}; a the least`, text: true, of: (item) => (item.entry && of(item.entry)?.group) || null,
      cell: (item) => [...((item.entry && of(item.entry)?.group) || "")].map((letter) => make("span", { class: "tie" }, letter)),
    })),
  ];
}

function rateCell(item) {
  const edge = item.entry?.lr_at_edge;
  return edge ? [rate(item.lr), make("span", { class: "edge", title: "The best rate is the last of its grid: beyond may be better." }, " at edge")] : rate(item.lr);
}

// Of the trained: the untrained model may be so far off that it would press all others together.
function scale(made) {
  const trained = made.filter((item) => item.trained), all = trained.length ? trained : made;
  const ends = known(all.flatMap((item) => [item.low ?? item.value, item.high ?? item.value]));
  const low = Math.min(...ends), high = Math.max(...ends), pad = (high - low || 1) * 0.04;
  return [low - pad, high + pad];
}

const scaleText = (made) => scale(made).map((end) => round(end, 2)).join(" to ");

// A dot and its whiskers on the table's own scale; the dashed line is full fine-tuning.
function interval(item, made) {
  if (item.low == null) return MISSING;
  const [low, high] = scale(made), x = (value) => 4 + (132 * (value - low)) / (high - low), full = made.find((other) => other.method === "full");
  const text = `${round(item.low)} to ${round(item.high)}`;
  if (item.high < low || item.low > high) return make("span", { class: "soft", title: "Outside the scale of the trained methods" }, item.high < low ? `◂ ${text}` : `${text} ▸`);
  return make("svg", { class: "interval", width: 140, height: 18, role: "img", "aria-label": text, "data-interval": text },
    make("title", {}, text),
    full ? make("line", { x1: x(full.value), x2: x(full.value), y1: 0, y2: 18, stroke: "var(--faint)", "stroke-dasharray": "2 2" }) : null,
    make("line", { x1: x(item.low), x2: x(item.high), y1: 9, y2: 9, stroke: colour(item.method), "stroke-width": 2 }),
    make("circle", { cx: x(item.value), cy: 9, r: 4, fill: colour(item.method) }));
}

function pairs(first) {
  const task = compared(first) ? content.comparison.tasks[first.task] : null;
  if (!task?.pairs?.length) return null;
  const p = (value) => (value == null ? MISSING : value < 0.001 ? "< 0.001" : round(value));
  const columns = [
    { key: "a", head: "method", text: true, of: (pair) => pair.a, cell: (pair) => [dot(pair.a), pair.a] },
    { key: "b", head: "against", text: true, of: (pair) => pair.b, cell: (pair) => [dot(pair.b), pair.b] },
    { key: "difference", head: "difference", unit: words(task.metric), of: (pair) => pair.difference, cell: (pair) => signed(pair.difference) },
    { key: "low", head: "interval", of: (pair) => pair.low, cell: (pair) => `${signed(pair.low)} to ${signed(pair.high)}` },
    { key: "p", head: "p", of: (pair) => pair.p, cell: (pair) => p(pair.p) },
    { key: "holm", head: "p, Holm", of: (pair) => pair.p_holm, cell: (pair) => p(pair.p_holm) },
    { key: "sd", head: "seed spread", unit: "std. dev.", of: (pair) => pair.seed_sd, cell: (pair) => round(pair.seed_sd) },
    { key: "verdict", head: "verdict", text: true, of: (pair) => pair.verdict, cell: (pair) => (pair.better ? `${pair.better} better` : pair.p_holm == null ? "undecided: one seed" : pair.verdict) },
    { key: "smallest", head: "could have been found", title: "The true difference that such a study finds in four of five cases", of: (pair) => (pair.verdict === "undecided" ? pair.smallest : null), cell: (pair) => (pair.verdict === "undecided" ? round(pair.smallest) : MISSING) },
  ];
  const wanted = (name) => !state.chosen.method.size || state.chosen.method.has(name);
  const shown = task.pairs.filter((pair) => wanted(pair.a) && wanted(pair.b));
  return make("details", { class: "under", "data-keep": `pairs-${first.task}` }, make("summary", {}, `Every pair of methods (${shown.length} tests)`),
    table(`pairs-${first.task}`, columns, shown, { caption: `Pairs of methods on ${first.task}` }));
}

// What the reader of the table must know: the comparison's own notes, runs it misses, methods of it that no run here shows.
function remarks(first) {
  if (!compared(first)) return null;
  const task = content.comparison.tasks[first.task];
  const there = content.runs.filter((run) => run.task === first.task && run.chosen && complete(run)).map((run) => run.method);
  const absent = task.methods.map((entry) => entry.method).filter((name) => !there.includes(name));
  const said = [
    ...(task.missing ?? []).map((text) => `Missing: ${text}`),
    task.pending?.length ? `Under way, still to be tested: ${task.pending.join(", ")}.` : null,
    task.letters_withheld ?? null,
    task.pairs?.length ? `Margin of equivalence: ${task.margin ?? "none was stated"}.` : null,
    absent.length ? `In the comparison, but not among the runs of this page: ${absent.join(", ")}.` : null,
    task.share_of_full_reason ? `No share of full SFT: ${task.share_of_full_reason}.` : null,
    ...task.methods.flatMap((entry) => (entry.notes ?? []).map((text) => `${entry.method}: ${text}`)),
    ...(task.notes ?? []),
  ].filter(Boolean);
  return said.length ? make("ul", { class: "note remarks" }, said.map((text) => make("li", {}, text))) : null;
}
