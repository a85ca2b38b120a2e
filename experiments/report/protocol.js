"use strict";
// How a comparison was made: its plan and what departed from it, its search, and quality along the training.

// The task of the comparison that is shown now.
function studied() {
  const tasks = Object.entries(content.comparison?.tasks ?? {});
  return tasks.find(([name, task]) => `${name} · ${task.model}` === here())?.[1] ?? null;
}

const setting = (value) => (value == null ? MISSING : typeof value === "object" ? JSON.stringify(value) : String(value));
const wanted = (name) => !state.chosen.method.size || state.chosen.method.has(name);

function plan() {
  const plans = content.comparison?.plans ?? [];
  if (!plans.length) return null;
  return plans.map(({ title, plan: made, departures }, number) => [
    make("h3", {}, title, " ", make("small", {}, `planned ${made.time}, before the first run`)),
    hint(`${made.how} ${made.tests}`),
    departures.length ? [make("p", { class: "alert" }, `${departures.length} departure${departures.length === 1 ? "" : "s"} from the plan`), departed(number, departures)] : make("p", {}, "Nothing departed from the plan."),
    make("details", { class: "under", "data-keep": `plan-${number}` }, make("summary", {}, "The plan"), planned(number, made)),
  ]);
}

function departed(number, departures) {
  const text = (key, head, show = (each) => each[key]) => ({ key, head, text: true, of: show, cell: show });
  const columns = [text("time", "when"), text("what", "what"), text("from", "from", (each) => setting(each.from)), text("to", "to", (each) => setting(each.to))];
  return table(`departures-${number}`, columns, departures, { caption: "Departures from the plan" });
}

// Every value of the plan by its dotted key.
function planned(number, made) {
  const leaves = (value, prefix) => (value && typeof value === "object" && !Array.isArray(value) && Object.keys(value).length
    ? Object.entries(value).flatMap(([name, each]) => leaves(each, `${prefix}${name}.`)) : [[prefix.slice(0, -1), value]]);
  const lines = leaves({ tasks: made.tasks, settings: made.settings }, "").map(([name, value]) => ({ name, value }));
  return table(`plan-${number}`, [
    { key: "name", head: "key", text: true, always: true, of: (line) => line.name, cell: (line) => line.name },
    { key: "value", head: "value", text: true, of: (line) => setting(line.value), cell: (line) => setting(line.value) },
  ], lines, { caption: "The plan" });
}

// Lines with their names at the right end: groups {method, x, y, text: what a point says}.
function drawnLines(label, groups, { xTitle, yTitle, log }) {
  return make("div", { class: "card" }, plot(label, 360, (whole) => {
    const room = Math.min(whole * 0.4, 18 + Math.max(...groups.map((group) => width(group.method))));
    const margin = { l: 56, r: room, t: 10, b: 44 }, frame = { width: whole - margin.l - margin.r, height: 360 - margin.t - margin.b };
    const xs = groups.flatMap((group) => group.x), y = axis(groups.flatMap((group) => group.y), frame.height, { pad: 0.06 });
    const x = log ? axis(xs, frame.width, { log, pad: 0.03 }) : null;
    const traces = groups.map((group) => ({
      x: group.x, y: group.y, mode: "lines+markers", line: { color: colour(group.method), width: 1.5 }, marker: { color: colour(group.method), symbol: symbol(group.method), size: 6 },
      customdata: group.text, hovertemplate: `<b>${inPlot(group.method)}</b><br>%{customdata}<extra></extra>`,
    }));
    const ends = groups.map((group) => ({ y: frame.height - y.pixel(group.y.at(-1)), at: group.y.at(-1), text: group.method, colour: colour(group.method) }));
    return [traces, {
      margin, hovermode: "closest", annotations: stacked(ends, frame.height), yaxis: { title: { text: inPlot(yTitle) }, range: y.range },
      xaxis: { title: { text: inPlot(xTitle) }, ...(log ? ticks(x.range, frame.width, count) : { rangemode: "tozero", nticks: 9 }) },
    }];
  }));
}

function searched() {
  const task = studied();
  if (!task?.search?.length || !task.search_cost) return null;
  const expected = Object.entries(task.expected_validation ?? {}).filter(([name]) => wanted(name));
  const groups = expected.map(([method, { score }]) => ({
    method, x: score.map((_, i) => i + 1), y: score, text: score.map((value, i) => `best of ${i + 1}: ${round(value)}`),
  }));
  return [
    hint(`The best validation score to be expected of so many trials, drawn from those that were tried (Dodge et al. 2019).${task.head_lr == null ? "" : ` The task head has the rate ${rate(task.head_lr)} in every run.`}`),
    groups.length ? drawnLines("Expected validation score over trials", groups, { xTitle: "trials", yTitle: `validation ${words(task.metric ?? "score")}` }) : null,
    make("h3", {}, "What the search cost"), searchCost(task),
    make("details", { class: "under", "data-keep": "trials" }, make("summary", {}, `Every trial (${task.search.length})`), trials(task)),
  ];
}

function searchCost(task) {
  const items = Object.entries(task.search_cost).filter(([name]) => wanted(name)).map(([method, cost]) => ({ method, ...cost }));
  const plain = (key, head, unit, show = String) => ({ key, head, unit, of: (item) => item[key], cell: (item) => (item[key] == null ? MISSING : show(item[key])) });
  return table("search-cost", [
    { key: "method", head: "method", text: true, always: true, of: (item) => item.method, cell: method },
    plain("trials", "trials"), plain("runs", "runs"), plain("failed", "diverged or failed"), plain("steps", "steps", "of training"),
    plain("train_s", "training", "time", seconds), plain("total_s", "in all", "time", seconds), plain("flops", "FLOPs", "of training", count),
  ], items, { caption: "What the search cost" });
}

function trials(task) {
  const values = (trial) => Object.entries(trial.values).map(([name, value]) => `${name.split(".").at(-1)} ${setting(value)}`).join(", ");
  return table("trials", [
    { key: "method", head: "method", text: true, always: true, of: (trial) => trial.method, cell: method },
    { key: "setting", head: "setting", text: true, of: values, cell: values },
    { key: "share", head: "length", unit: "of the steps", of: (trial) => trial.share, cell: (trial) => percent(trial.share, 0) },
    { key: "seeds", head: "seeds", of: (trial) => trial.n_seeds, cell: (trial) => String(trial.n_seeds) },
    { key: "loss", head: "validation", unit: "loss", of: (trial) => trial.validation_loss, cell: (trial) => round(trial.validation_loss) },
    { key: "score", head: "validation", unit: words(task.metric ?? "score"), of: (trial) => trial.validation, cell: (trial) => round(trial.validation) },
    { key: "chosen", head: "outcome", text: true, of: (trial) => (trial.chosen ? "chosen" : trial.failure ? "failed" : ""), cell: (trial) => (trial.failure ? make("span", { class: "failed" }, trial.failure) : trial.chosen ? "chosen" : "") },
  ], task.search.filter((trial) => wanted(trial.method)), { caption: "Every trial of the search" });
}

const USES = { step: ["steps", count], examples: ["examples", count], flops: ["FLOPs", count], train_s: ["seconds of training", seconds] };

function along() {
  const task = studied(), made = task?.curves;
  if (!made?.methods) return null;
  const axes = Object.keys(made.equal), use = axes.includes(state.use) ? state.use : axes[0], [name, show] = USES[use];
  const measure = made.measure === "score" ? words(task.metric) : "minus the loss";
  const groups = Object.entries(made.methods).filter(([method]) => wanted(method)).map(([method, points]) => {
    const kept = points.filter((point) => point[use] > 0);
    return { method, x: kept.map((point) => point[use]), y: kept.map((point) => point.score), text: kept.map((point) => `${measure} ${round(point.score)} after ${show(point[use])} ${name}`) };
  }).filter((group) => group.x.length);
  const pills = make("div", { class: "pills", role: "group", "aria-label": "Axis" }, axes.map((each) => make("button", {
    type: "button", class: "pill", "aria-pressed": String(each === use), "data-use": each, onclick: () => { state.use = each; draw("along"); },
  }, USES[each][0])));
  return [
    hint("Scored on the validation set while training, the mean over seeds. A point on the way is of a run whose rate has not decayed yet: a run of that length would have ended better."),
    pills, groups.length ? drawnLines(`Validation score over ${name}`, groups, { xTitle: `${name} (log scale)`, yTitle: `validation ${measure}`, log: true }) : null,
    plateaus(made, axes),
  ];
}

function plateaus(made, axes) {
  const items = Object.keys(made.plateau).filter(wanted).map((method) => ({ method, plateau: made.plateau[method], level: made.to_level?.[method] }));
  const used = (key, head, of) => axes.map((each) => ({ key: `${key}-${each}`, head, unit: USES[each][0], of: (item) => of(item)?.[each], cell: (item) => { const value = of(item)?.[each]; return value == null ? MISSING : USES[each][1](value); } }));
  const level = made.level == null ? [] : [
    ...used("level", `to ${round(made.level)}`, (item) => item.level),
    { key: "came", head: "seeds", unit: "that came there", of: (item) => item.level?.reached, cell: (item) => (item.level ? `${item.level.reached} of ${item.level.of}` : MISSING) },
  ];
  return [
    hint(`The plateau is from where to the end the smoothed curve gains at most ${made.plateau_margin}; it is not reached where that lies in the second half of the steps.`),
    table("plateaus", [
      { key: "method", head: "method", text: true, always: true, of: (item) => item.method, cell: method },
      { key: "score", head: "plateau", unit: "score", of: (item) => (item.plateau.reached ? item.plateau.score : null), cell: (item) => (item.plateau.reached ? round(item.plateau.score) : "not reached") },
      ...used("plateau", "plateau", (item) => (item.plateau.reached ? item.plateau : null)), ...level,
    ], items, { caption: "The plateau, and what it took to a level" }),
  ];
}
