"use strict";
// What stands in each section, from its heading down.

const hint = (text) => make("p", { class: "note" }, text);

function check(text, name, section) {
  return make("label", { class: "toggle" }, make("input", {
    type: "checkbox", checked: state[name], onchange: (event) => { state[name] = event.target.checked; draw(section); },
  }), text);
}

function tradeoffs() {
  const made = lines().filter(inPlace);
  const drawn = Object.keys(COSTS).map((key) => tradeoff(made, key)).filter(Boolean);
  if (!drawn.length) return [empty("No trained run fits the filters.")];
  const said = bars(made);
  return [
    hint(`${words(made[0].metric)} on the test set, upward is better; leftward is cheaper. The dotted line is the Pareto front: what no other method beats in both. ${said ? `Bars: ${said}.` : ""}`),
    make("div", { class: "grid" }, drawn),
  ];
}

function learning() {
  const runs = seen().filter((run) => inPlace(run) && run.curve && (run.chosen || state.everyRate || !complete(run)));
  const drawn = curves(runs), every = Math.max(1, ...runs.map((run) => run.curve.every));
  if (!drawn) return [empty("No run that fits the filters has left its training losses (metrics.jsonl).")];
  return [hint(every > 1 ? `A line a run; each point is the mean of up to ${every} neighbouring steps.` : "A line a run."), make("div", { class: "card" }, drawn)];
}

function rates() {
  const drawn = sweep(lines(true).filter(inPlace));
  if (!drawn) return [empty("No method that fits the filters was run at more than one learning rate here.")];
  return [hint("Mean over seeds. The ringed rate is the one shown; a triangle in the ring's place says that it is the last of its grid, so a rate beyond may be better."), make("div", { class: "card" }, drawn)];
}

// Text, then other tasks: {name, unit, of(run) → {before, after}, worse: by how much, from −1 to 1}
function probes(runs) {
  const tasks = unique(runs.flatMap((run) => Object.keys(run.forgetting.tasks ?? {})));
  const corpora = unique(runs.flatMap((run) => Object.keys(run.forgetting.corpora ?? {})));
  const several = corpora.length > 1 ? corpora : [];
  const clip = (x) => Math.max(-1, Math.min(1, x));
  const all = several.length ? "all corpora" : corpora[0] ?? "general text";
  const chance = (task) => { const share = runs.map((run) => run.forgetting.tasks?.[task]?.chance).find((each) => each != null); return share == null ? "" : `, a guess has ${round(share, 2)}`; };
  return [
    { name: all, unit: "perplexity", of: (run) => run.forgetting.text_perplexity, change: (b, a) => `× ${round(a / b, 2)}`, worse: (b, a) => clip(Math.log2(a / b)), digits: 2 },
    { name: "the base's own text", unit: "KL to the base, nats per token", of: (run) => ({ before: 0, after: run.forgetting.kl_per_token }), change: () => "", worse: (b, a) => clip(a), digits: 3 },
    ...several.flatMap((name) => [
      { name, unit: "perplexity", of: (run) => run.forgetting.corpora?.[name]?.text_perplexity, change: (b, a) => `× ${round(a / b, 2)}`, worse: (b, a) => clip(Math.log2(a / b)), digits: 2 },
      { name: `the base's own text after ${name}`, unit: "KL to the base, nats per token", of: (run) => ({ before: 0, after: run.forgetting.corpora?.[name]?.kl_per_token }), change: () => "", worse: (b, a) => clip(a), digits: 3 },
    ]),
    { name: "the encoder's features", unit: "drift, 1 − cosine: no forgetting", of: (run) => ({ before: 0, after: run.forgetting.feature_drift }), change: () => "", worse: () => 0, digits: 3 },
    ...tasks.map((task) => ({
      name: task, unit: words(runs.map((run) => run.forgetting.tasks?.[task]?.metric).find(Boolean) ?? "quality") + chance(task),
      of: (run) => run.forgetting.tasks?.[task], change: (b, a) => signed(a - b), worse: (b, a) => clip(2 * (b - a)), digits: 3,
    })),
  ];
}

function forgetting() {
  const made = lines().filter((item) => inPlace(item) && item.trained && item.runs.some((run) => run.forgetting));
  if (!made.length) return [empty("No run that fits the filters has measured forgetting.")];
  const value = (item, probe, when) => mean(item.runs.filter((run) => run.forgetting).map((run) => probe.of(run)?.[when]));
  const both = (item, probe) => ["before", "after"].map((when) => value(item, probe, when));
  const worse = (item, probe) => { const [before, after] = both(item, probe); return before == null || after == null ? null : probe.worse(before, after); };
  const cell = (item, probe) => {
    const [before, after] = both(item, probe);
    if (worse(item, probe) == null) return MISSING;
    return [
      make("span", { class: "before" }, `${round(before, probe.digits)} → `), make("span", { class: "after" }, round(after, probe.digits)),
      make("span", { class: "change" }, probe.change(before, after) || "\u00a0"),
    ];
  };
  const tint = (item, probe) => { const by = worse(item, probe) ?? 0; return `background:rgb(var(${by > 0 ? "--loss" : "--gain"}) / ${(Math.abs(by) * 0.5).toFixed(3)})`; };
  const columns = [
    { key: "probe", head: "measured on", text: true, always: true, of: (probe) => probe.name, cell: (probe) => [probe.name, make("span", { class: "variant", style: "display:block;font-size:.75rem" }, probe.unit)] },
    ...made.map((item, i) => ({
      key: `line-${i}`, head: item.name + (state.everyRate ? ` lr ${rate(item.lr)}` : ""), class: "heat", of: (probe) => worse(item, probe), style: (probe) => tint(item, probe),
      cell: (probe) => cell(item, probe), title: "Sort by how much is forgotten",
    })),
  ];
  const shown = probes(made.flatMap((item) => item.runs).filter((run) => run.forgetting)).filter((probe) => made.some((item) => value(item, probe, "after") != null));
  return [
    hint(`Before → after training on ${made[0].task}, mean over seeds. Perplexity and KL: lower is better; the other tasks' metrics: higher is better.`),
    switchedOff(),
    make("p", { class: "key" }, make("span", {}, make("i", { style: "background:rgb(var(--loss) / .5)" }), "forgotten: metric − 0.5, perplexity × 2, or KL 1, and beyond"), make("span", {}, make("i", { style: "background:rgb(var(--gain) / .5)" }), "gained, as far")),
    table("forgetting", columns, shown, { caption: "Forgetting: measures by methods" }),
  ];
}

// A line a stage: the score on every task after it; what is lost since its own training is tinted.
function sequences() {
  if (!content.sequences.length) return null;
  const short = (task) => String(task).split(" ")[0];
  return [
    hint("One delta trained on one task after another. Each line: the score on every task after that stage. Backward transfer: what the later stages did to the earlier tasks, on average."),
    ...content.sequences.map((one, number) => {
      const stages = [{ name: "nothing", scores: one.base, perplexity: one.text_perplexity?.[0], at: -1 },
        ...one.matrix.map((scores, i) => ({ name: short(one.tasks[i]), scores, perplexity: one.text_perplexity?.[i + 1], at: i }))];
      const lost = (stage, j) => (stage.at > j ? one.matrix[j][j] - stage.scores[j] : 0);
      const tint = (by) => `background:rgb(var(${by > 0 ? "--loss" : "--gain"}) / ${(Math.min(1, Math.abs(2 * by)) * 0.5).toFixed(3)})`;
      const columns = [
        { key: "stage", head: "after training on", text: true, always: true, of: (stage) => stage.at, cell: (stage) => stage.name },
        ...one.tasks.map((task, j) => ({ key: `task-${j}`, head: short(task), unit: words(one.metrics[j]), class: "heat", of: (stage) => stage.scores[j], style: (stage) => tint(lost(stage, j)), cell: (stage) => round(stage.scores[j]) })),
        { key: "perplexity", head: "general text", unit: "perplexity", of: (stage) => stage.perplexity, cell: (stage) => round(stage.perplexity, 2) },
      ];
      return [make("h3", {}, dot(one.method), one.method, " ", make("small", {}, `${one.model} · seed ${one.seed} · backward transfer ${signed(one.backward_transfer)}, forward ${signed(one.forward_transfer)}`)),
        table(`sequence-${number}`, columns, stages, { caption: `Sequence of ${one.method} on ${one.model}` })];
    }),
  ];
}

function ledger() {
  const made = lines().filter(inPlace), [drawn, legend] = costs(made);
  if (!drawn) return [empty("No complete run fits the filters.")];
  const over = (of) => (item) => mean(item.runs.map(of));
  const column = (key, head, unit, name, show, of = (run) => run.numbers[name] || null) => ({ key, head, unit, title: content.columns[name], of: over(of), cell: (item) => show(over(of)(item)) });
  const columns = [
    { key: "method", head: "method", text: true, always: true, of: (item) => item.name, cell: method },
    column("total", "wall time", "of a run", "total_s", seconds),
    column("tokens", "training", "tokens / s", "tokens_per_s", count),
    column("step", "step", "median time", "step_s", seconds),
    column("peak", "peak memory", "of training", "training_peak_bytes", bytes, (run) => run.numbers.training_peak_bytes),
    column("rise", "training adds", "over the loaded model", "increase_bytes", bytes, (run) => run.numbers.increase_bytes),
    column("process", "peak memory", "of the process", "peak_bytes", bytes),
    column("device", "peak memory", "of the device", "device_peak_bytes", bytes),
    column("added", "added", "parameters", "added", count, (run) => run.numbers.added),
    column("stored", "stored", "per task", "delta_bytes", bytes),
    column("copy", "stored", "of a full copy", "delta_bytes", percent, (run) => run.numbers.delta_bytes / run.numbers.full_copy_bytes || null),
    column("switch", "switching", "to another task", "switch_s", seconds),
    column("unmerged", "generation", "tokens / s, unmerged", "unmerged_tokens_per_s", count),
    column("merged", "generation", "tokens / s, merged", "merged_tokens_per_s", count),
    column("flops", "training", "FLOPs, estimated", "train_flops", count),
  ];
  return [
    make("div", { class: "card" }, make("p", { class: "key" }, legend.map(([name, shade]) => make("span", {}, make("i", { style: `background:${shade}` }), name))), drawn),
    make("h3", {}, "What it costs"), table("costs", columns, made, { caption: "Costs by method" }),
  ];
}

const FIRST = 4; // samples shown before more are asked for

function samples() {
  const set = content.samples.find((item) => placed(item) === here());
  const ids = new Set(seen().map((run) => run.id)), runs = new Map(content.runs.map((run) => [run.id, run]));
  const prompts = (set?.prompts ?? []).map((each) => ({ ...each, answers: each.answers.filter((answer) => ids.has(answer.run)) }))
    .filter((each) => each.answers.length)
    .filter((each) => !state.disagreeing || new Set(each.answers.map((answer) => answer.correct ?? answer.text)).size > 1);
  const toggle = check("only where methods disagree", "disagreeing", "samples");
  if (!prompts.length) return [set ? toggle : null, empty(set ? "No sample fits." : "No run that fits the filters has left its predictions (predictions.jsonl).")];
  const sorted = (answers) => [...answers].sort((a, b) => byMethod(runs.get(a.run), runs.get(b.run)));
  const card = (each) => make("article", { class: "card sample" },
    make("p", { class: "label" }, `Prompt${each.part ? ` · ${each.part}` : ""}`), make("pre", {}, each.prompt || "(nothing)"),
    each.gold ? [make("p", { class: "label" }, "Gold"), make("pre", {}, each.gold)] : null,
    make("div", { class: "answers" }, [...Map.groupBy(sorted(each.answers), (answer) => `${answer.correct ?? answer.score}\n${answer.text}`).values()].map((same) => {
      const [{ text, correct, score }] = same, verdict = correct === true ? "✓ right" : correct === false ? "✗ wrong" : score == null ? "" : `score ${round(score)}`;
      return make("div", { class: `answer ${correct === true ? "right" : correct === false ? "wrong" : ""}` },
        make("div", { class: "who" }, same.map((answer) => runs.get(answer.run)).map((run) => make("span", {}, method(run))), make("span", { class: "verdict" }, verdict)),
        make("pre", {}, text || "(nothing)"));
    })));
  return [
    hint(`${set.prompts.length} of ${set.of} test prompts at even distances, answered by each method's first seed; equal answers stand together, long texts are cut.`),
    toggle, prompts.length > FIRST ? check(`all ${prompts.length} samples`, "everySample", "samples") : null, (state.everySample ? prompts : prompts.slice(0, FIRST)).map(card),
  ];
}

function detail(run) {
  if (!state.open.has(run.id)) return null;
  const list = (title, values) => make("div", {}, make("h4", {}, title), make("dl", {}, Object.entries(values).map(([name, value]) => [make("dt", {}, name), make("dd", {}, typeof value === "object" ? JSON.stringify(value) : String(value))])));
  const parts = Object.entries(run.quality_by_part ?? {}).map(([name, values]) => [name, Object.entries(values).map(([metric, value]) => `${words(metric)} ${round(value)}`).join(", ")]);
  return make("div", { class: "more" },
    run.error ? make("div", { style: "grid-column:1/-1" }, make("h4", { class: "failed" }, run.failure_kind ? `Failed (${run.failure_kind})` : "Failed"), make("pre", {}, run.error)) : null,
    list("Configuration", content.configs[run.config]), list("Environment", content.environments[run.environment]),
    make("div", {}, list("Data", { base: run.base ?? MISSING, ...run.data }), parts.length ? list("Quality by part", Object.fromEntries(parts)) : null));
}

function everyRun() {
  const runs = seen();
  const of = (get) => (run) => (complete(run) ? get(run) : null);
  const open = (run) => make("button", {
    type: "button", class: "toggle", "aria-expanded": String(state.open.has(run.id)), style: "margin:0;min-height:28px;padding:1px 10px", "data-run": run.id,
    onclick: () => { state.open.has(run.id) ? state.open.delete(run.id) : state.open.add(run.id); draw("every-run"); document.querySelector(`[data-run="${run.id}"]`)?.focus({ preventScroll: true }); },
  }, state.open.has(run.id) ? "close" : "open");
  const number = (key, head, unit, name, show, get = (run) => run.numbers[name]) => ({ key, head, unit, title: content.columns[name], of: of(get), cell: (run) => (complete(run) ? show(get(run)) : MISSING) });
  const columns = [
    { key: "method", head: "method", text: true, always: true, of: named, cell: method },
    { key: "details", head: "details", text: true, always: true, of: (run) => run.name, cell: open, title: "Sort by the run's name" },
    { key: "status", head: "status", text: true, of: (run) => run.status, cell: (run) => (complete(run) ? "complete" : make("span", { class: "failed" }, `✗ failed${run.failure_kind ? ` (${run.failure_kind})` : ""}`)) },
    { key: "task", head: "task", text: true, of: (run) => run.task, cell: (run) => run.task },
    { key: "model", head: "model", text: true, of: (run) => run.model, cell: (run) => run.model },
    { key: "seed", head: "seed", of: (run) => run.seed, cell: (run) => String(run.seed) },
    { key: "lr", head: "learning rate", of: (run) => run.lr, cell: (run) => rate(run.lr) },
    { key: "metric", head: "metric", text: true, of: (run) => run.metric, cell: (run) => words(run.metric ?? MISSING) },
    { key: "split", head: "scored on", text: true, of: of((run) => run.split), cell: (run) => (complete(run) ? run.split : MISSING) },
    number("value", "quality", "mean", "score", round),
    number("loss", "validation", "loss", "validation_loss", round),
    number("steps", "steps", "of training", "steps", String),
    number("trainable", "trainable", "parameters", "trainable", count),
    number("peak", "peak memory", "of training", "training_peak_bytes", bytes),
    number("step", "step", "median time", "step_s", seconds, (run) => run.numbers.step_s || null),
    number("total", "wall time", "of the run", "total_s", seconds),
  ];
  return [hint(`Every run as its result file has it: ${runs.length} of ${content.runs.length}.`), runs.length ? table("runs", columns, runs, { caption: "Every run", detail }) : empty("No run fits the filters.")];
}

function failures() {
  const failed = seen().filter((run) => !complete(run));
  if (!failed.length) return null;
  return failed.map((run) => make("article", { class: "card sample" },
    make("h4", {}, method(run), make("span", { class: "soft" }, ` ${run.task} · ${run.model} · seed ${run.seed} · lr ${rate(run.lr)}${run.failure_kind ? ` · ${run.failure_kind}` : ""}`)),
    make("pre", { class: "failed", style: "margin-top:6px" }, run.error ?? "failed without a message")));
}
