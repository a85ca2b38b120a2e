"use strict";
// Quality against forgetting over rates and steps, methods at equal quality, and what became of the weights.

const switchedOff = () => make("p", { class: "note switched-off" }, content.switched_off);

function frontier() {
  const found = studied()?.frontier;
  if (!found) return null;
  return [
    hint(`${words(found.quality)} on the ${found.split} examples, upward is better; ${found.measure}, leftward is less forgotten. A point is a rate at its end or a step along its training, the mean over seeds; the line is a method's Pareto front.`),
    switchedOff(), make("div", { class: "card" }, frontierPlot(found)),
    ...equalQuality(found),
    found.notes.length ? make("ul", { class: "note remarks" }, found.notes.map((text) => make("li", {}, text))) : null,
  ];
}

function frontierPlot(found) {
  const points = found.points.filter((point) => wanted(point.method));
  return plot("Quality against forgetting", 400, (whole) => {
    const margin = { l: 52, r: 16, t: 14, b: 46 }, frame = { width: whole - margin.l - margin.r, height: 400 - margin.t - margin.b };
    const base = found.base_quality;
    const x = axis([0, ...points.map((point) => point.forgotten)], frame.width, { pad: 0.1, from: 0 });
    const y = axis(known([base, ...points.map((point) => point.quality)]), frame.height, { pad: 0.1 });
    const methods = unique(points.map((point) => point.method));
    const said = (point) => `step ${point.step}, lr ${rate(point.lr)}, ${point.n_seeds} seed${point.n_seeds === 1 ? "" : "s"}<br>${inPlot(words(found.quality))} ${round(point.quality)}<br>${round(point.forgotten)} nats a token`;
    const traces = methods.flatMap((name) => {
      const own = points.filter((point) => point.method === name), best = own.filter((point) => point.front).sort((a, b) => a.forgotten - b.forgotten);
      const line = base == null || !best.length || best[0].quality <= base ? best : [{ forgotten: 0, quality: base }, ...best];
      const ink = colour(name), at = (some) => ({ x: some.map((point) => point.forgotten), y: some.map((point) => point.quality) });
      return [
        { ...at(line), mode: "lines", hoverinfo: "skip", line: { color: ink, width: 1.5 } },
        {
          ...at(own), mode: "markers", customdata: own.map(said), hovertemplate: `<b>${inPlot(name)}</b><br>%{customdata}<extra></extra>`,
          marker: { color: ink, symbol: symbol(name), size: 8, opacity: own.map((point) => (point.front ? 1 : 0.35)), line: { color: token("--card"), width: 1 } },
        },
      ];
    });
    const ends = methods.map((name) => points.filter((point) => point.method === name && point.front).sort((a, b) => b.quality - a.quality)[0]).filter(Boolean).map((point) => ({
      x: x.pixel(point.forgotten), y: frame.height - y.pixel(point.quality), at: { x: point.forgotten, y: point.quality }, text: point.method, colour: colour(point.method),
    }));
    const levels = found.levels.map((level) => level.quality);
    const shapes = levels.map((level) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: level, y1: level, line: { color: token("--faint"), width: 1, dash: "dot" } }));
    return [traces, {
      margin, shapes, hovermode: "closest", annotations: labelled(ends, frame),
      xaxis: { title: { text: inPlot(found.measure) }, range: x.range }, yaxis: { title: { text: inPlot(words(found.quality)) }, range: y.range },
    }];
  });
}

// A line a method, a column a level of quality.
function equalQuality(found) {
  if (!found.levels.length) return [];
  const methods = unique(found.levels.flatMap((level) => [...level.methods.map((each) => each.method), ...level.not_reached])).filter(wanted);
  const at = (level, name) => level.methods.find((each) => each.method === name);
  const cell = (each) => (each ? [`${round(each.mean)} `, make("span", { class: "soft" }, `${round(each.low)} to ${round(each.high)} `), ...[...each.group].map((letter) => make("span", { class: "tie" }, letter))] : "not reached");
  const columns = [
    { key: "method", head: "method", text: true, always: true, of: (name) => name, cell: (name) => method({ method: name }) },
    ...found.levels.map((level, i) => ({ key: `level-${i}`, head: `at ${round(level.quality)}`, unit: words(found.quality), always: true, of: (name) => at(level, name)?.mean, cell: (name) => cell(at(level, name)) })),
  ];
  const last = found.levels.at(-1), pairs = last.pairs.filter((pair) => wanted(pair.a) && wanted(pair.b));
  return [
    make("h3", {}, "Forgotten at equal quality"),
    hint("Between the points around the level on each seed's front, the mean over seeds and texts with its interval. Methods that share a letter are not told apart, a the least."),
    table("equal-quality", columns, methods, { caption: "Forgotten at equal quality" }),
    pairs.length ? make("details", { class: "under", "data-keep": "equal-pairs" }, make("summary", {}, `Every pair at ${round(last.quality)} (${pairs.length} test${pairs.length === 1 ? "" : "s"})`), equalPairs(pairs)) : null,
  ];
}

function equalPairs(pairs) {
  const verdict = (pair) => (pair.better ? `${pair.better} forgets less` : pair.verdict);
  return table("equal-pairs", [
    { key: "a", head: "method", text: true, always: true, of: (pair) => pair.a, cell: (pair) => [dot(pair.a), pair.a] },
    { key: "b", head: "against", text: true, always: true, of: (pair) => pair.b, cell: (pair) => [dot(pair.b), pair.b] },
    { key: "difference", head: "difference", unit: "nats a token", of: (pair) => pair.difference, cell: (pair) => signed(pair.difference) },
    { key: "low", head: "interval", of: (pair) => pair.low, cell: (pair) => `${signed(pair.low)} to ${signed(pair.high)}` },
    { key: "verdict", head: "verdict", text: true, of: verdict, cell: verdict },
  ], pairs, { caption: "Pairs at equal quality" });
}

const MEASURES = [["norm", "norm", "of ΔW / of W", 4], ["rank", "rank", "of ΔW", 1], ["stable_rank", "stable rank", "of ΔW", 1], ["effective_rank", "effective rank", "of ΔW", 1], ["intruders", "intruders", "new vectors a matrix", 2]];

function weights() {
  const found = studied()?.spectra;
  if (!found) return null;
  const own = Object.entries(found).filter(([name]) => wanted(name)), [, first] = own[0] ?? Object.entries(found)[0];
  const lines = own.flatMap(([name, each]) => Object.entries({ all: each.all, ...each.sites }).filter(([, change]) => change).map(([site, change]) => ({ method: name, site, ...change })));
  const without = own.filter(([, each]) => each.reason);
  return [
    hint(`Means over matrices and seeds. Intruders: of the ${first.top} leading singular vectors of W + ΔW, those whose cosine to every one of W's is below ${first.cosine}.`),
    lines.length ? table("weights", [
      { key: "method", head: "method", text: true, always: true, of: (line) => line.method, cell: method },
      { key: "site", head: "site", text: true, always: true, of: (line) => line.site, cell: (line) => line.site },
      { key: "n", head: "matrices", of: (line) => line.n_weights, cell: (line) => String(Math.round(line.n_weights)) },
      ...MEASURES.map(([key, head, unit, digits]) => ({ key, head, unit, of: (line) => line[key], cell: (line) => round(line[key], digits) })),
    ], lines, { caption: "What became of the weights" }) : null,
    without.length ? make("ul", { class: "note remarks" }, without.map(([name, each]) => make("li", {}, `${name}: ${each.reason}`))) : null,
  ];
}
