"use strict";
// Names beside the points instead of a legend, where they cover neither points nor each other.

const pen = document.createElement("canvas").getContext("2d");

function width(text, size = 12) {
  pen.font = `${size}px ${getComputedStyle(document.body).fontFamily}`;
  return pen.measureText(text).width;
}

const PLACES = [1, 1.8, 2.8].flatMap((far) => [[9, 0], [-9, 0], [0, -14], [0, 14], [8, -12], [-8, -12], [8, 12], [-8, 12]].map(([x, y]) => [x * far, y * far]));

const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;

const around = (x, y, r) => ({ left: x - r, right: x + r, top: y - r, bottom: y + r });

// Points {x, y in pixels, text, colour} in a frame of the given size; annotations for plotly.js, shifted from the point.
function labelled(points, frame, taken = [], radius = 6) {
  const boxes = [...taken, ...points.map(({ x, y }) => around(x, y, radius))];
  return points.map(({ x, y, at, text, colour: ink }) => {
    const wide = width(text), tall = 14;
    const candidates = PLACES.map(([nearX, nearY]) => {
      const dx = nearX + Math.sign(nearX) * (radius - 6), dy = nearY + Math.sign(nearY) * (radius - 6);
      const left = dx > 0 ? x + dx : dx < 0 ? x + dx - wide : x - wide / 2;
      const box = { left, right: left + wide, top: y + dy - tall / 2, bottom: y + dy + tall / 2 };
      const out = Math.max(0, -box.left) + Math.max(0, box.right - frame.width) + Math.max(0, -box.top) + Math.max(0, box.bottom - frame.height);
      const cost = 3 * boxes.filter((other) => overlap(box, other)).length + out + Math.hypot(dx, dy) / 100;
      return { box, cost };
    });
    const best = candidates.reduce((a, b) => (b.cost < a.cost ? b : a));
    boxes.push(best.box);
    return {
      x: at.x, y: at.y, text: inPlot(text), showarrow: false, xanchor: "center", yanchor: "middle", font: { color: ink, size: 12 },
      xshift: (best.box.left + best.box.right) / 2 - x, yshift: -((best.box.top + best.box.bottom) / 2 - y),
    };
  });
}

// Labels at the right end of lines, pushed apart vertically; each {y in pixels, at, text, colour}.
function stacked(ends, height, gap = 15) {
  const order = [...ends].sort((a, b) => a.y - b.y);
  order.forEach((end, i) => { end.place = Math.max(end.y, i ? order[i - 1].place + gap : 0); });
  for (let i = order.length - 1, limit = height; i >= 0; i -= 1, limit -= gap) order[i].place = Math.min(order[i].place, limit);
  for (let i = order.length - 2; i >= 0; i -= 1) order[i].place = Math.min(order[i].place, order[i + 1].place - gap);
  return order.map((end) => ({
    xref: "paper", x: 1, xanchor: "left", xshift: 6, y: end.at, yanchor: "middle", yshift: end.y - end.place,
    text: inPlot(end.text), showarrow: false, font: { color: end.colour, size: 12 },
  }));
}
