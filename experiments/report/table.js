"use strict";
// One kind of table: columns that sort by a click or a key, the missing always last.

// A column: {key, head, unit?, of(item) → sort value, cell(item) → text or element, text?: left-aligned, style?(item) → CSS}
function table(id, columns, items, { caption, detail, start } = {}) {
  const kept = columns.filter((column) => column.always || items.some((item) => column.of(item) != null && column.of(item) !== ""));
  const [sorted, direction] = state.sorts[id] ?? start ?? [null, 1];
  const column = kept.find((candidate) => candidate.key === sorted);
  const shown = column ? [...items].sort((a, b) => compare(column.of(a), column.of(b), direction)) : items;
  const box = make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    make("table", { id },
      make("thead", {}, make("tr", {}, kept.map((each) => header(id, each, each === column ? direction : 0)))),
      make("tbody", {}, shown.flatMap((item) => body(kept, item, detail)))));
  return box;
}

function header(id, column, direction) {
  const sort = (event) => {
    // Numbers start with the largest, names with A.
    state.sorts[id] = [column.key, direction ? -direction : column.text ? 1 : -1];
    draw(event.target.closest("section").id);
    document.querySelector(`#${CSS.escape(id)} [data-column="${CSS.escape(column.key)}"] button`)?.focus({ preventScroll: true });
  };
  return make("th", {
    scope: "col", class: column.text ? "text" : null, "data-column": column.key,
    "aria-sort": direction ? (direction > 0 ? "ascending" : "descending") : "none",
  }, make("button", { type: "button", onclick: sort, title: column.title ?? `Sort by ${column.head}` }, column.head,
    direction ? make("span", { class: "arrow", "aria-hidden": "true" }, direction > 0 ? " ↑" : " ↓") : null,
    column.unit ? make("span", { class: "unit" }, column.unit) : null));
}

function body(columns, item, detail) {
  const row = make("tr", {}, columns.map((column, position) => {
    const attributes = { class: [column.text ? "text" : "", column.class ?? ""].join(" ").trim() || null, style: column.style?.(item) };
    return position ? make("td", attributes, column.cell(item)) : make("th", { ...attributes, scope: "row" }, column.cell(item));
  }));
  const more = detail?.(item);
  return more ? [row, make("tr", { class: "detail" }, make("td", { colspan: columns.length }, more))] : [row];
}

function compare(a, b, direction) {
  const missing = (value) => value == null || value === "" || Number.isNaN(value);
  if (missing(a) || missing(b)) return missing(a) - missing(b);
  return direction * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), undefined, { numeric: true }));
}

const dot = (method) => make("span", { class: "dot", style: `background:${colour(method)}`, "aria-hidden": "true" });
const method = (item) => [dot(item.method), item.method, item.variant ? make("span", { class: "variant" }, item.variant) : null];
const empty = (text) => make("p", { class: "empty" }, text);
