"use strict";
// The page as a whole: filters, sections, colours; everything is drawn anew after a change.

// What this script draws; names, headings and order are those of experiments/report/sections.py.
const DRAWN = {
  comparison, plan, search: searched, tradeoffs, along, learning, rates, forgotten: forgetting, frontier, weights, sequences, ledger,
  samples, failures, "every-run": everyRun,
};
const SECTIONS = content.sections.map((each) => [each.id, each.heading, DRAWN[each.id] ?? (() => added(each)), each.per_place]);

// A plugin's section: a figure of plotly's, or HTML, of which nothing is run.
function added({ heading, html, figure }) {
  if (figure) return make("div", { class: "card" }, plot(heading, figure.layout?.height ?? 360, () => [figure.data, figure.layout ?? {}]));
  if (html == null) return null;
  const { body } = new DOMParser().parseFromString(html, "text/html");
  for (const each of body.querySelectorAll("*")) {
    if (["SCRIPT", "IFRAME", "OBJECT", "EMBED", "FORM", "META"].includes(each.tagName)) each.remove();
    for (const { name, value } of [...each.attributes]) if (/^on/i.test(name) || /^\s*javascript:/i.test(value)) each.removeAttribute(name);
  }
  return make("div", { class: "card" }, [...body.childNodes]);
}

function pills() {
  const all = places(), now = here();
  if (all.length < 2) return null;
  return make("div", { class: "pills", role: "group", "aria-label": "Task and model" }, all.map((name) => make("button", {
    type: "button", class: "pill", "aria-pressed": String(name === now), onclick: () => { state.place = name; draw(); },
  }, name)));
}

// All of the page, or one section where nothing else changes.
function draw(only) {
  const kept = new Set([...document.querySelectorAll("details[data-keep][open]")].map((box) => box.dataset.keep));
  const scrolled = new Map([...document.querySelectorAll(".scroll > table")].map((each) => [each.id, each.parentElement.scrollLeft]));
  waiting.length = 0;
  for (const [id, heading, fill, perPlace] of SECTIONS.filter(([id]) => !only || id === only)) {
    const section = document.getElementById(id), filled = fill();
    for (const old of section.querySelectorAll(".plot")) Plotly.purge(old);
    section.hidden = filled == null;
    document.querySelector(`#nav a[href="#${id}"]`).hidden = section.hidden;
    section.replaceChildren(make("h2", {}, heading), ...[perPlace ? pills() : null, filled].flat(3).filter(Boolean));
  }
  for (const box of document.querySelectorAll("details[data-keep]")) box.open = kept.has(box.dataset.keep);
  for (const each of document.querySelectorAll(".scroll > table")) each.parentElement.scrollLeft = scrolled.get(each.id) ?? 0;
  waiting.forEach((one) => one());
  const runs = seen();
  document.getElementById("count").textContent = `${runs.length} of ${content.runs.length} runs`;
  document.documentElement.dataset.drawn = String(Number(document.documentElement.dataset.drawn ?? 0) + 1);
}

function facet(name) {
  const values = unique(content.runs.map((run) => String(run[name])));
  values.sort(name === "method" ? (a, b) => ORDER.indexOf(a) - ORDER.indexOf(b) : (a, b) => a.localeCompare(b, undefined, { numeric: true }));
  const chosen = state.chosen[name], box = make("details", { "data-facet": name }), head = make("summary", {});
  const show = () => {
    box.classList.toggle("on", chosen.size > 0);
    head.textContent = chosen.size ? `${name}: ${[...chosen].join(", ").slice(0, 24)}` : name;
  };
  const choice = (value) => make("label", {}, make("input", {
    type: "checkbox", value, onchange: (event) => { event.target.checked ? chosen.add(value) : chosen.delete(value); show(); draw(); },
  }), name === "method" ? dot(value) : null, make("span", {}, value), make("span", {}, String(content.runs.filter((run) => String(run[name]) === value).length)));
  box.append(head, make("div", { class: "menu" }, values.map(choice)));
  box.addEventListener("toggle", () => {
    if (!box.open) return;
    for (const other of document.querySelectorAll("#filters details")) if (other !== box) other.open = false;
    const menu = box.lastElementChild; // on a narrow screen the bar scrolls sideways, and the menu hangs from the screen
    menu.style.top = getComputedStyle(menu).position === "fixed" ? `${box.getBoundingClientRect().bottom + 6}px` : "";
  });
  show();
  return { box, clear: () => { chosen.clear(); for (const input of box.querySelectorAll("input")) input.checked = false; show(); } };
}

function filters() {
  const facets = FACETS.filter((name) => new Set(content.runs.map((run) => String(run[name]))).size > 1).map(facet);
  let pause;
  const search = make("input", { type: "search", placeholder: "Search runs", "aria-label": "Search runs: names, settings, errors", oninput: (event) => {
    clearTimeout(pause);
    pause = setTimeout(() => { state.search = event.target.value.trim(); draw(); }, 150);
  } });
  const reset = make("button", { type: "button", id: "reset", onclick: () => { facets.forEach((each) => each.clear()); search.value = state.search = ""; draw(); } }, "Reset");
  document.getElementById("filters").append(...facets.map((each) => each.box), search, reset, make("span", { id: "count", role: "status" }));
  document.addEventListener("click", (event) => { for (const { box } of facets) if (!box.contains(event.target)) box.open = false; });
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") for (const { box } of facets) box.open = false; });
}

function head() {
  const runs = content.runs, failed = runs.filter((run) => !complete(run));
  const number = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;
  const parts = [number(runs.length, "run"), number(new Set(runs.map((run) => run.method)).size, "method"), number(new Set(runs.map((run) => run.task)).size, "task"), number(new Set(runs.map((run) => run.model)).size, "model"), number(new Set(runs.map((run) => run.seed)).size, "seed")];
  document.getElementById("summary").textContent = parts.join(" · ");
  if (content.how) Object.assign(document.getElementById("how"), { textContent: content.how, hidden: false });
  const alerts = document.getElementById("alerts");
  if (failed.length) alerts.append(make("p", { class: "alert bad" }, `${number(failed.length, "run")} failed: `, make("a", { href: "#failures" }, "see why"), "."));
  if (content.warnings.length) alerts.append(make("details", { class: "alert", open: content.warnings.length < 4 }, make("summary", {}, number(content.warnings.length, "warning")), make("ul", {}, content.warnings.map((text) => make("li", {}, text)))));
}

// auto follows the system; a choice is kept where the browser lets a file keep one.
const system = matchMedia("(prefers-color-scheme: dark)");
const THEMES = { auto: ["◐", "Auto", "as the system has them"], light: ["○", "Light", "light"], dark: ["●", "Dark", "dark"] };
let theme = "auto";
try { theme = localStorage.getItem("theme") in THEMES ? localStorage.getItem("theme") : "auto"; } catch { /* no storage here */ }

function paint(redraw = true) {
  const [sign, name, said] = THEMES[theme], button = document.getElementById("theme");
  document.documentElement.toggleAttribute("data-dark", theme === "dark" || (theme === "auto" && system.matches));
  button.replaceChildren(`${sign} `, make("span", {}, name));
  button.setAttribute("aria-label", `Colours: ${said}`);
  for (const each of document.querySelectorAll("#filters [data-facet=method] label")) each.querySelector(".dot").style.background = colour(each.querySelector("input").value);
  if (redraw) draw();
}

document.getElementById("theme").addEventListener("click", () => {
  const names = Object.keys(THEMES);
  theme = names[(names.indexOf(theme) + 1) % names.length];
  try { localStorage.setItem("theme", theme); } catch { /* no storage here */ }
  paint();
});
system.addEventListener("change", () => { if (theme === "auto") paint(); });
let wide = innerWidth;
let resized;
addEventListener("resize", () => {
  clearTimeout(resized);
  resized = setTimeout(() => { if (innerWidth !== wide) { wide = innerWidth; draw(); } }, 150); // a phone's bars change the height alone
});

document.getElementById("nav").append(...SECTIONS.map(([id, heading]) => make("a", { href: `#${id}` }, heading)));
document.getElementById("main").replaceChildren(...SECTIONS.map(([id]) => make("section", { id })));
filters();
head();
paint(false);
draw();
