// The tables and plots of the report, with intervals and dialects, and what experiments found.

import { get } from "./api.js";
import { h, interval, number } from "./dom.js";
import { heading, scale, table } from "./tables.js";

export async function numbersPage(run) {
  const found = await get("/api/numbers");
  const page = h("div", { class: "numbers" }, h("h1", {}, "Numbers"));
  if (run.report) page.append(h("p", { class: "intro" }, "The same and more stands in the ", h("a", { href: "/report" }, "report of the run"), ", which needs no server."));
  if (!found.scores) page.append(h("p", { class: "lead" }, "This run is not scored, or was scored in another state. Run ", h("code", {}, `unibrain evaluate ${found.root} --with-earlier`), " first."));
  else page.append(...scores(found), ...controls(found), ...latents(found));
  if (found.penalties.latents.length) {
    page.append(h("section", {}, h("h2", {}, "How the penalties were chosen"),
      found.penalties.chart && h("div", { class: "scroll figure", tabindex: "0", role: "region", "aria-label": "Penalties" },
        h("img", { src: found.penalties.chart, alt: "For each latent, explained variance and correlation of images left out, against alpha" })),
      h("dl", { class: "definitions" }, found.penalties.latents.flatMap((one) => [h("dt", {}, one.title), h("dd", {}, one.words, one.warning && h("span", { class: "warning" }, ` ${one.warning}`))]))));
  }
  page.append(h("section", {}, h("h2", {}, "Experiments"), found.experiments.length
    ? found.experiments.map((one) => h("article", {}, h("h3", {}, one.title), h("p", { class: "intro" }, one.answer || one.question),
      one.figures.map((figure, n) => h("div", { class: "scroll figure", tabindex: "0", role: "region", "aria-label": `${one.title}, plot ${n + 1}` }, h("img", { src: figure, alt: `${one.title}, plot ${n + 1}; its numbers are in the table of the experiment` })))))
    : h("p", {}, "None was done on this state of the run. ", h("code", {}, `unibrain ablate ${found.root}`), " is one.")));
  return { page, title: "Numbers" };
}

function scores(found) {
  return ["picture", "caption"].filter((kind) => found.scores.some((score) => score.kind === kind)).map((kind) => h("section", {},
    h("h2", {}, `${heading(kind)}: ${found.images} images`),
    table(heading(kind), ["Score", "Value", "0 to 1", "Shuffled", "Stands", "Images", "Dialect"], found.scores.filter((score) => score.kind === kind).map((score) => h("tr", {},
      h("th", { scope: "row" }, `${score.title} ${score.higher_is_better ? "↑" : "↓"}`, h("span", { class: "question" }, score.value === null ? score.note : score.question)),
      h("td", { class: "number" }, h("strong", {}, number(score.value)), score.interval && h("span", { class: "interval" }, interval(...score.interval))),
      h("td", { class: "wide" }, score.value !== null && scale(score, found.controls)),
      h("td", { class: "number" }, number(score.control)),
      h("td", { class: "number" }, score.standing === null ? "–" : `${Math.round(100 * score.standing)} %`),
      h("td", { class: "number" }, String(score.images)),
      h("td", { class: "number dialect" }, [score.dialect, score.direction, score.tokenizer].filter(Boolean).join(", "))))),
    h("p", { class: "legend" }, h("span", {}, h("i", { class: "key key-fill" }), "score with its 95 % interval"), " ", h("span", {}, h("i", { class: "key key-shuffled" }), "shuffled"), " ",
      h("span", {}, h("i", { class: "key key-control" }), "controls"), " ", h("span", {}, h("i", { class: "key key-ceiling" }), "ceilings"), " ",
      h("span", {}, "Stands: between random (0 %) and oracle (100 %)."))));
}

function controls(found) {
  if (!found.controls.length) return [];
  const rows = found.scores.filter((score) => Object.keys(score.beside).length).map((score) => h("tr", {},
    h("th", { scope: "row" }, `${score.title} ${score.higher_is_better ? "↑" : "↓"}`),
    h("td", { class: "number" }, h("strong", {}, number(Object.values(score.beside)[0].score))),
    found.controls.map((control) => h("td", { class: "number" }, number(score.beside[control.name]?.value)))));
  return [h("section", {}, h("h2", {}, "Controls and ceilings"),
    h("p", { class: "intro" }, "What stands in the place of the decoded items, and the score of the very same images."),
    table("Controls and ceilings", ["Score", "score", ...found.controls.map((control) => `${control.title}${control.role === "ceiling" ? " (ceiling)" : ""}`)], rows),
    h("dl", { class: "definitions" }, found.controls.flatMap((control) => [h("dt", {}, control.title), h("dd", {}, control.explanation)])))];
}

function latents(found) {
  const made = [];
  if (found.identification.length) {
    made.push(h("section", {}, h("h2", {}, "Is the true image told from others, before anything is drawn?"),
      table("Identification of latents", ["Latent", "among", "images", "two-way", ...found.top.map((k) => `top-${k}`)], found.identification.map((one) => h("tr", {},
        h("th", { scope: "row" }, one.title), h("td", { class: "number" }, one.among), h("td", { class: "number" }, one.pool.toLocaleString("en")),
        h("td", { class: "number" }, number(one.two_way)), one.top.map((share) => h("td", { class: "number" }, number(share))))))));
  }
  if (found.regions.length) {
    const most = Math.max(0.01, ...found.regions.flatMap((region) => region.values.map((value) => value ?? 0)));
    made.push(h("section", {}, h("h2", {}, "How well each latent is predicted"),
      h("p", { class: "intro" }, "Pearson's correlation across the unseen images, mean over a latent's dimensions; 0 is chance. Regions alone: fits to their voxels only."),
      table("Prediction accuracy", ["From", ...found.latents.map((latent) => latent.title), "Voxels", "Noise ceiling"], found.regions.map((region) => h("tr", {},
        h("th", { scope: "row" }, region.name === "all" ? "all voxels" : region.name),
        region.values.map((value) => {
          const td = h("td", {}, number(value, 2));
          td.style.setProperty("--share", String(Math.max(0, value ?? 0) / most));
          return td;
        }),
        h("td", { class: "missing number" }, region.voxels === null ? "–" : region.voxels.toLocaleString("en")),
        h("td", { class: "missing number" }, region.ceiling === null ? "–" : `${Math.round(region.ceiling)} %`))), "heat")));
  }
  return made;
}
