// Tables of numbers: values with their intervals, and differences that leave out zero stand out.

import { h, interval, number } from "./dom.js";

const KINDS = { picture: "Pictures", caption: "Captions", latent: "Latents" };
export const heading = (kind) => KINDS[kind] ?? kind;

// A value between 0 and 1 on a line, with its interval, its controls and its ceilings.
export function scale(score, controls) {
  const at = (value) => `${(100 * Math.min(1, Math.max(0, value))).toFixed(1)}%`;
  const mark = (name, value, title) => {
    const element = h("span", { class: name, title });
    element.style.left = at(value);
    return element;
  };
  const line = h("span", { class: "scale", "aria-hidden": "true" });
  if (score.interval) {
    const band = h("span", { class: "scale-interval" });
    band.style.left = at(score.interval[0]);
    band.style.right = `calc(100% - ${at(score.interval[1])})`;
    line.append(band);
  }
  for (const control of controls) {
    const found = score.beside[control.name];
    if (found) line.append(mark(`scale-${control.role}`, found.value, `${control.title}: ${number(found.value)}`));
  }
  if (score.control !== null) line.append(mark("scale-shuffled", score.control, `shuffled: ${number(score.control)}`));
  line.append(mark("scale-dot", score.value, `score: ${number(score.value)}`));
  return line;
}

export function table(label, head, rows, name = "scores") {
  // On a telephone a row becomes a block, in which each number says what it is.
  for (const row of rows) [...row.children].forEach((cell, n) => { if (n && !cell.matches(".wide, .missing")) cell.dataset.label = head[n]; });
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label },
    h("table", { class: name }, h("thead", {}, h("tr", {}, head.map((text, n) => h("th", { scope: "col", class: n ? "number" : null }, text)))), h("tbody", {}, rows)));
}

function cell(found) {
  if (!found || found.value === null) return h("td", { class: "number missing" }, "–");
  const difference = found.difference === null ? null
    : h("span", { class: "interval" }, `${found.difference >= 0 ? "+" : ""}${number(found.difference)} (${interval(found.difference_low, found.difference_high)})`);
  return h("td", { class: "number" }, h("span", { class: found.differs ? "differs" : "" }, number(found.value)),
    found.low === null ? null : h("span", { class: "interval" }, interval(found.low, found.high)), difference);
}

// What an experiment found: its answer, tables by kind, and the same scans side by side.
export function findings(found) {
  const known = new Map(found.cells.map((one) => [`${one.setting}\n${one.metric}`, one]));
  const tables = Object.entries(found.kinds).map(([kind, columns]) => {
    const rows = found.settings.filter((setting) => columns.some((column) => known.has(`${setting}\n${column.name}`)));
    return h("section", {}, h("h2", {}, heading(kind)), table(heading(kind),
      ["Score", ...rows], columns.map((column) => h("tr", {},
        h("th", { scope: "row", title: column.title }, `${column.short} ${column.higher_is_better ? "↑" : "↓"}`),
        rows.map((setting) => cell(known.get(`${setting}\n${column.name}`)))))));
  });
  const count = found.strips[0]?.items.length ?? 0;
  const sides = Array.from({ length: count }, (_, n) => h("li", { class: "card side-by-side" }, found.strips.map((strip) => h("figure", {},
    strip.items[n]?.picture && h("img", { src: strip.items[n].picture, alt: `${strip.label}: ${strip.items[n].caption || "no caption"}`, loading: "lazy", width: 150, height: 150 }),
    h("figcaption", {}, h("strong", {}, strip.label), h("span", {}, strip.items[n]?.caption ?? ""))))));
  return [
    h("p", { class: "lead" }, found.answer),
    h("h2", {}, "The same scans"), h("ol", { class: "cards sides" }, sides),
    ...tables,
    h("p", { class: "note" }, "Below each value its 95 % interval over images, and the paired difference with its interval; a value is bold where that leaves out zero. ↑ higher is better, ↓ lower."),
    h("ul", { class: "limits" }, found.notes.map((note) => h("li", {}, note))),
  ];
}
