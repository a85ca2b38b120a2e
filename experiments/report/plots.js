"use strict";
// The plots: quality against each cost, learning curves, learning rates, seconds by phase.

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const CONFIG = { displaylogo: false, responsive: false, displayModeBar: false };

function layout(more) {
  const axis = { gridcolor: token("--grid"), linecolor: token("--rule"), zeroline: false, ticks: "", fixedrange: true, title: { font: { size: 12 }, standoff: 8 } };
  const { xaxis, yaxis, ...rest } = more;
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
    font: { family: token("--sans"), size: 12, color: token("--soft") },
    hoverlabel: { bgcolor: token("--card"), bordercolor: token("--rule"), font: { color: token("--ink"), family: token("--sans"), size: 12 }, align: "left" },
    xaxis: { ...axis, ...xaxis }, yaxis: { ...axis, ...yaxis }, ...rest,
  };
}

// A box that is drawn once it has its width: draw(width) → [traces, layout].
const waiting = [];
function plot(label, height, figure) {
  const box = make("div", { class: "plot", style: `height:${height}px`, role: "img", "aria-label": label });
  waiting.push(() => { const [traces, shape] = figure(box.clientWidth); Plotly.newPlot(box, traces, { ...layout(shape), height, width: box.clientWidth }, CONFIG); });
  return box;
}

// An axis over values with room at both ends, in plotly.js's terms, and the pixel of a value on it.
function axis(values, length, { log = false, pad = 0.1, from = null } = {}) {
  const inner = (value) => (log ? Math.log10(value) : value);
  const numbers = known(values).map(inner);
  let low = from ?? Math.min(...numbers), high = Math.max(...numbers);
  if (low === high) [low, high] = log ? [low - 0.5, high + 0.5] : [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  const room = (high - low) * pad;
  if (from == null) low -= room;
  high += room;
  return { range: [low, high], pixel: (value) => (length * (inner(value) - low)) / (high - low) };
}

// Numbers of bytes are shown in the unit of their largest, so that the axis has round ticks.
function unit(values) {
  const power = Math.min(4, Math.max(0, Math.floor(Math.log2(Math.max(1, ...known(values))) / 10)));
  return [["B", "KiB", "MiB", "GiB", "TiB"][power], 1024 ** power];
}

// Lines that no other beats in both, from the cheapest up.
function front(made, key) {
  const order = [...made].sort((a, b) => a[key] - b[key] || b.value - a.value);
  let best = -Infinity;
  return order.filter((item) => item.value > best && ((best = item.value), true));
}

// Ticks of a log axis at round numbers, written in full; fewer to a decade, the more decades there are.
function ticks([low, high], length, show = (x) => String(Number(x.toPrecision(3)))) {
  const decades = high - low, steps = decades > length / 100 ? [1] : decades > length / 180 ? [1, 3] : [1, 2, 5];
  const values = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power += Math.max(1, Math.ceil((decades * 44) / length)))
    values.push(...steps.map((step) => step * 10 ** power).filter((value) => Math.log10(value) >= low && Math.log10(value) <= high));
  return { type: "log", range: [low, high], tickmode: "array", tickvals: values, ticktext: values.map(show), tickangle: 0 };
}

function tradeoff(made, key) {
  const cost = COSTS[key], items = made.filter((item) => item.trained && item[key] != null && (!cost.log || item[key] > 0) && item.value != null);
  if (!items.length) return null;
  const [name, size] = cost.binary ? unit(items.map((item) => item[key])) : [cost.unit, 1];
  const under = [name, cost.log ? "log scale" : null].filter(Boolean).join(", ");
  const title = make("h4", {}, cost.name[0].toUpperCase() + cost.name.slice(1), make("span", { class: "soft" }, ` (${under})`));
  return make("div", { class: "card", "data-plot": key }, title, plot(`Quality against ${cost.name}`, 280, (whole) => {
    const margin = { l: 44, r: 12, t: 14, b: 30 }, frame = { width: whole - margin.l - margin.r, height: 280 - margin.t - margin.b };
    const ends = (some) => known(some.flatMap((item) => [item.low, item.high, item.value])), untrained = made.filter((item) => !item.trained);
    const apart = Math.max(...ends(items)) - Math.min(...ends(items));
    const far = (item) => Math.min(...ends(items)) - item.value > 0.6 * apart; // it would press all others together
    const x = axis(items.map((item) => item[key] / size), frame.width, { log: cost.log, pad: 0.14 });
    const y = axis(ends([...items, ...untrained.filter((item) => !far(item))]), frame.height, { pad: 0.1 });
    const pixels = (item) => ({ x: x.pixel(item[key] / size), y: frame.height - y.pixel(item.value) });
    const best = front(items, key);
    const traces = [
      { x: best.map((item) => item[key] / size), y: best.map((item) => item.value), mode: "lines", line: { shape: "hv", color: token("--faint"), width: 1.5, dash: "dot" }, hoverinfo: "skip" },
      ...items.map((item) => ({
        x: [item[key] / size], y: [item.value], mode: "markers", name: inPlot(item.name),
        marker: { color: colour(item.method), symbol: symbol(item.method), size: 10, line: { color: token("--card"), width: 1.5 } },
        error_y: item.low == null ? undefined : { type: "data", symmetric: false, array: [item.high - item.value], arrayminus: [item.value - item.low], color: colour(item.method), thickness: 1.5, width: 3 },
        hovertemplate: `<b>${inPlot(item.name)}</b><br>${inPlot(words(item.metric))} ${round(item.value)}${item.low == null ? "" : ` (${round(item.low)} to ${round(item.high)})`}<br>${cost.name} ${cost.show(item[key])}<br>${item.n} seed${item.n === 1 ? "" : "s"}, lr ${rate(item.lr)}<extra></extra>`,
      })),
    ];
    const near = untrained.filter((item) => !far(item));
    const shapes = near.map((item) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: item.value, y1: item.value, line: { color: colour(item.method), width: 1, dash: "dash" } }));
    const notes = untrained.map((item) => ({
      xref: "paper", x: 1, xanchor: "right", yref: far(item) ? "paper" : "y", y: far(item) ? 0 : item.value, yanchor: "bottom", showarrow: false, font: { color: colour(item.method), size: 11 },
      text: `${inPlot(item.short)}, untrained${far(item) ? `: ${round(item.value)}, below ↓` : ""}`,
    }));
    const taken = [
      ...untrained.map((item) => { const bottom = far(item) ? frame.height : pixels(item).y; return { left: frame.width - (far(item) ? 170 : 95), right: frame.width, top: bottom - 16, bottom: bottom + 2 }; }),
      ...items.filter((item) => item.low != null).map((item) => ({ left: pixels(item).x - 3, right: pixels(item).x + 3, top: frame.height - y.pixel(item.high), bottom: frame.height - y.pixel(item.low) })),
      ...best.slice(1).flatMap((item, i) => { const [from, to] = [pixels(best[i]), pixels(item)]; return [{ left: from.x, right: to.x, top: from.y - 1, bottom: from.y + 1 }, { left: to.x - 1, right: to.x + 1, top: to.y, bottom: from.y }]; }),
    ];
    const points = items.map((item) => ({ ...pixels(item), at: { x: cost.log ? Math.log10(item[key] / size) : item[key] / size, y: item.value }, text: item.short, colour: colour(item.method) }));
    return [traces, {
      margin, shapes, annotations: [...notes, ...labelled(points, frame, taken)],
      xaxis: cost.log ? ticks(x.range, frame.width, cost.binary ? undefined : (value) => count(value).replace(/\.0+(?= |$)/, "")) : { range: x.range, nticks: 6 },
      yaxis: { range: y.range, nticks: 6 },
    }];
  }));
}

function curves(runs) {
  const drawn = runs.filter((run) => run.curve?.loss.some((loss) => loss != null));
  if (!drawn.length) return null;
  const losses = known(drawn.flatMap((run) => run.curve.loss)).filter((loss) => loss > 0);
  const log = Math.max(...losses) / Math.min(...losses) > 20;
  return plot("Training loss over steps", 380, (whole) => {
    const names = unique(drawn.map(short)), room = Math.min(whole * 0.4, 18 + Math.max(...names.map((name) => width(name))));
    const margin = { l: 56, r: room, t: 10, b: 44 }, tall = 380 - margin.t - margin.b;
    const y = axis(losses, tall, { log, pad: 0.05 });
    const traces = drawn.map((run) => ({
      x: run.curve.step, y: run.curve.loss, mode: "lines", connectgaps: false, line: { color: colour(run.method), width: 1.5 }, opacity: names.length < drawn.length ? 0.65 : 1,
      hovertemplate: `<b>${inPlot(named(run))}</b> seed ${run.seed}, lr ${rate(run.lr)}<br>step %{x}: loss %{y:.3g}<extra></extra>`,
    }));
    const last = (run) => run.curve.loss.findLast((loss) => loss > 0);
    const ends = names.map((name) => drawn.filter((run) => short(run) === name)).filter((group) => group.some(last)).map((group) => {
      const value = mean(group.map(last));
      return { y: tall - y.pixel(value), at: log ? Math.log10(value) : value, text: short(group[0]), colour: colour(group[0].method) };
    });
    return [traces, {
      margin, hovermode: "closest", annotations: stacked(ends, tall),
      xaxis: { title: { text: "optimizer step" }, rangemode: "tozero" },
      yaxis: { title: { text: `training loss (nats${log ? ", log scale" : ""})` }, ...(log ? ticks(y.range, tall * 1.6) : { range: y.range }) },
    }];
  });
}

// Validation loss over the rates of each method; a ring where it is shown, a triangle where that is the grid's edge.
function sweep(made) {
  const groups = [...Map.groupBy(made.filter((item) => item.trained && item.lr != null && item.validation != null), (item) => item.name).values()]
    .map((group) => group.sort((a, b) => a.lr - b.lr)).filter((group) => group.length > 1);
  const picked = (item) => item.chosen || compared(item)?.lr === item.lr; // the search's own runs are not the ones tested
  if (!groups.length) return null;
  const all = groups.flat(), positive = all.every((item) => item.validation > 0), values = all.map((item) => item.validation);
  const log = positive && Math.max(...values) / Math.min(...values) > 8;
  return plot("Validation loss over learning rates", 380, (whole) => {
    const margin = { l: 56, r: 16, t: 14, b: 44 }, frame = { width: whole - margin.l - margin.r, height: 380 - margin.t - margin.b };
    const x = axis(all.map((item) => item.lr), frame.width, { log: true, pad: 0.08 }), y = axis(values, frame.height, { log, pad: 0.12 });
    const edge = (group) => { const at = group.findIndex(picked); return at === 0 ? "left" : at === group.length - 1 ? "right" : null; };
    const traces = groups.flatMap((group) => {
      const ink = colour(group[0].method), chosen = group.filter(picked);
      return [
        {
          x: group.map((item) => item.lr), y: group.map((item) => item.validation), mode: "lines+markers", line: { color: ink, width: 1.5 }, marker: { color: ink, symbol: symbol(group[0].method), size: 7 },
          customdata: group.map((item) => `${item.n} seed${item.n === 1 ? "" : "s"}${picked(item) ? ", chosen" : ""}`),
          hovertemplate: `<b>${inPlot(group[0].name)}</b> lr %{x}<br>validation loss %{y:.4g}<br>%{customdata}<extra></extra>`,
        },
        { x: chosen.map((item) => item.lr), y: chosen.map((item) => item.validation), mode: "markers", hoverinfo: "skip", marker: { symbol: edge(group) ? `triangle-${edge(group)}-open` : "circle-open", size: 17, color: ink, line: { width: 2, color: ink } } },
      ];
    });
    const points = groups.map((group) => group.find(picked) ?? group.reduce((a, b) => (b.validation < a.validation ? b : a))).map((item) => ({
      x: x.pixel(item.lr), y: frame.height - y.pixel(item.validation), text: item.short, colour: colour(item.method), at: { x: Math.log10(item.lr), y: log ? Math.log10(item.validation) : item.validation },
    }));
    const taken = all.map((item) => ({ left: x.pixel(item.lr) - 5, right: x.pixel(item.lr) + 5, top: frame.height - y.pixel(item.validation) - 5, bottom: frame.height - y.pixel(item.validation) + 5 }));
    return [traces, {
      margin, hovermode: "closest", annotations: labelled(points, frame, taken, 11),
      xaxis: { title: { text: "learning rate (log scale)" }, ...ticks(x.range, frame.width, rate) },
      yaxis: { title: { text: `validation loss (nats${log ? ", log scale" : ""})` }, ...(log ? ticks(y.range, frame.height * 1.6) : { range: y.range }) },
    }];
  });
}

// Phases of a run in three families: training in blues, measuring in ambers, getting ready and storing in greys.
const PHASES = {
  forward: ["#2f6fc4", "#6fa6f2"], backward: ["#17427e", "#3f76c4"], optimizer: ["#8db4e8", "#a9cbfb"], train: ["#2f6fc4", "#6fa6f2"],
  evaluate: ["#d98b1f", "#e6a94f"], forgetting: ["#a85d0a", "#b9772b"], cost: ["#f0c987", "#f5d9a8"],
  data: ["#4b5563", "#9aa4b2"], load: ["#6b7280", "#7d8794"], inject: ["#8b93a0", "#667080"], checkpoint: ["#a5acb7", "#525b68"], save: ["#bcc2cb", "#434b56"], other: ["#d5d9df", "#363d47"],
};

function costs(made) {
  const items = [...made].filter((item) => item.runs.some((run) => run.seconds)).reverse();
  if (!items.length) return [null, []];
  const found = unique(items.flatMap((item) => Object.keys(item.runs[0].seconds))).filter((name) => name !== "total");
  const phases = [...Object.keys(PHASES).filter((name) => found.includes(name)), ...found.filter((name) => !(name in PHASES))];
  const shade = (name) => (PHASES[name] ?? ["#8b93a0", "#667080"])[dark() ? 1 : 0];
  const of = (item, name) => mean(item.runs.map((run) => run.seconds[name])) ?? 0;
  const total = (item) => phases.reduce((sum, name) => sum + of(item, name), 0);
  const height = 64 + 30 * items.length;
  const box = plot("Seconds by phase", height, (whole) => {
    const left = Math.min(whole * 0.34, 14 + Math.max(...items.map((item) => width(item.short))));
    const traces = phases.map((name) => ({
      type: "bar", orientation: "h", x: items.map((item) => of(item, name)), y: items.map((_, i) => i), marker: { color: shade(name), line: { color: token("--card"), width: 1 } },
      customdata: items.map((item) => [inPlot(item.name), seconds(of(item, name)), percent(of(item, name) / total(item), 1)]),
      hovertemplate: `<b>%{customdata[0]}</b><br>${inPlot(words(name))}: %{customdata[1]} (%{customdata[2]})<extra></extra>`,
    }));
    const ends = items.map((item, i) => ({ x: total(item), y: i, xanchor: "left", xshift: 4, text: seconds(total(item)), showarrow: false, font: { color: token("--ink"), size: 12 } }));
    return [traces, {
      barmode: "stack", bargap: 0.35, margin: { l: left, r: 66, t: 4, b: 42 }, annotations: ends,
      xaxis: { title: { text: "seconds of wall time, mean over seeds" }, rangemode: "tozero" },
      yaxis: { tickmode: "array", tickvals: items.map((_, i) => i), ticktext: items.map((item) => inPlot(item.short)), showgrid: false, tickfont: { color: token("--ink") } },
    }];
  });
  return [box, phases.map((name) => [words(name), shade(name)])];
}
