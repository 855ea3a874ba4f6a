// One scan: what was seen, what is decoded with these settings, step by step, and what controls show.

import { start, upload } from "./api.js";
import { copy, h, later, look, number } from "./dom.js";
import { asked, ownSettings, settingsPanel } from "./settings.js";

const TYPING = 200;
const MOVING = 250;

export function scanPage(run) {
  const settings = ownSettings(run);
  const state = { id: run.scans[0].id, scan: null, name: "", job: null, items: null, recipe: null, frame: null };
  const seen = look("Seen");
  const decoded = look("Decoded", "is-decoded");
  const status = h("p", { class: "status", role: "status" });
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Denoising", hidden: true });
  const cancel = h("button", { type: "button", hidden: true, onclick: () => { state.job?.stop(); rest("Cancelled."); } }, "Cancel");
  const title = h("h1", { tabindex: "-1" });
  const film = h("ol", { class: "film", "aria-label": "Denoising steps of the picture" });
  const sentences = h("ol", { class: "sentences" });
  const sentencesBox = h("details", { hidden: true }, h("summary", {}, "How the sentence formed"), sentences);
  const beside = h("div", { class: "beside" });
  const values = h("dl", { class: "values scan-values" });
  const truths = h("details", {}, h("summary", {}, "All true captions"));
  const python = h("pre", { tabindex: "0", "aria-label": "Python" });
  const command = h("pre", { tabindex: "0", "aria-label": "Command" });
  const keep = h("a", { class: "button", download: "decoded.png", hidden: true }, "Save the picture");
  const say = (text) => { status.textContent = text; };

  function rest(text) {
    for (const element of [progress, cancel]) element.hidden = true;
    decoded.busy(false);
    say(text);
  }

  const row = () => run.scans.find((scan) => scan.id === state.id);
  const url = (what, id = state.id) => `/api/pictures/${id}/${what}?${run.session}`;

  function pick(id) {
    Object.assign(state, { id, scan: null, frame: null });
    const scan = row();
    title.textContent = `Image ${id}`;
    seen.element.hidden = false;
    seen.show(url("seen"), scan.captions[0] ?? "");
    decoded.show(scan.picture ? url("decoded") : null, scan.caption, "as the run decoded it");
    truths.hidden = scan.captions.length < 2;
    truths.replaceChildren(truths.firstChild, h("ul", {}, scan.captions.map((text) => h("li", {}, text))));
    values.replaceChildren(...run.metrics.map((metric) => h("div", {},
      h("dt", { title: metric.title }, metric.short), h("dd", {}, number(scan.values[metric.name], 2)))));
    values.parentElement.hidden = run.metrics.length === 0;
    beside.parentElement.hidden = scan.controls.length === 0;
    beside.replaceChildren(...run.controls.filter((control) => scan.controls.includes(control.name)).map((control) =>
      h("figure", { class: `small is-${control.role}`, title: control.explanation, "data-control": control.name },
        h("img", { src: url(control.name), alt: `${control.title}: ${control.explanation}`, width: 112, height: 112, loading: "lazy" }),
        h("figcaption", {}, h("strong", {}, `${control.title}${control.role === "ceiling" ? " (ceiling)" : ""}`), h("span", {})))));
    for (const button of list.querySelectorAll("button")) {
      const chosen = Number(button.dataset.id) === id;
      button.setAttribute("aria-current", chosen ? "true" : "false");
      if (chosen) button.scrollIntoView({ block: "nearest" });
    }
    decode();
  }

  // The film strip: each frame is a button that holds the large picture at that step.
  function frames() {
    const pictures = state.items.picture?.frames ?? [];
    film.replaceChildren(...pictures.map((frame, place) => h("li", {}, h("button", {
      type: "button", "aria-pressed": String(state.frame === place), title: `step ${frame.step} of ${frame.steps}`,
      onclick: () => { state.frame = state.frame === place ? null : place; show(); },
    }, h("img", { src: frame.item, alt: "", width: 72, height: 72 }), h("span", {}, `step ${frame.step}`)))));
    film.parentElement.hidden = !pictures.length && state.job === null;
    const words = state.items.caption?.frames ?? [];
    sentencesBox.hidden = !words.length;
    sentences.replaceChildren(...words.map((frame) => h("li", {}, h("span", { class: "quiet" }, `step ${frame.step} `), frame.item || "(nothing)")));
  }

  function show() {
    const { picture, caption } = state.items;
    const latest = picture?.frames.length ? picture.frames.at(state.frame ?? -1) : null;
    const holds = state.frame !== null || !picture?.item;
    const source = holds ? latest?.item : picture.item;
    const words = caption?.item ?? caption?.frames.at(-1)?.item;
    const about = holds && latest ? `step ${latest.step} of ${latest.steps}` : "";
    if (source || words) decoded.show(source, words, about);
    frames();
  }

  function decode() {
    state.job?.stop();
    Object.assign(state, { frame: null, items: {} });
    if (!settings.use.length) {
      state.job = null;
      return rest("No latent takes part: switch one on.");
    }
    const began = performance.now();
    const source = state.scan === null ? { image: state.id } : { scan: state.scan };
    const job = start("/api/decode", { ...source, settings: asked(settings) }, (frame) => {
      if (state.job !== job) return;
      const item = (state.items[frame.kind] ??= { frames: [], item: null });
      if (frame.final !== undefined) {
        item.item = frame.final;
        return show();
      }
      item.frames.push(frame);
      progress.value = frame.step / frame.steps;
      show();
    }, (now) => {
      if (state.job !== job || now.state === "done") return;
      cancel.hidden = progress.hidden = false;
      decoded.busy(true);
      say(now.ahead ? `Waiting: ${now.ahead} before this one.` : "Decoding.");
    });
    state.job = job;
    job.done.then((answer) => {
      if (state.job !== job || answer === null) return;
      state.job = null;
      state.items = answer.result.items;
      recipe(answer);
      show();
      if (!state.items.picture) decoded.show(null, state.items.caption?.item, "no picture without Z or a context");
      const seconds = (performance.now() - began) / 1000;
      const slow = seconds > 0.4 ? ` in ${seconds.toFixed(1)} s` : "";
      rest(state.items.picture && !state.items.picture.frames.length ? `Decoded${slow}, without diffusion.` : `Decoded${slow}.`);
    }).catch((error) => {
      if (state.job === job) rest(error.message);
    });
  }

  function recipe(answer) {
    python.textContent = answer.recipe.python;
    command.textContent = answer.recipe.command;
    keep.hidden = !state.items.picture;
    if (state.items.picture) keep.href = state.items.picture.item;
    for (const [name, text] of Object.entries(answer.controls)) {
      const words = beside.querySelector(`[data-control="${name}"] figcaption span`);
      if (words) words.textContent = text;
    }
  }

  // Which scan: a list that is searched and sorted.
  const list = h("ol", { class: "scan-list", id: "scan-list" });
  const count = h("p", { class: "quiet count", role: "status" });
  const find = h("input", { type: "search", id: "find", autocomplete: "off", placeholder: "a word of a caption", oninput: later(TYPING, fill) });
  const sort = h("select", { id: "sort", onchange: () => fill() },
    run.metrics.length > 0 && h("option", { value: "overall" }, "All scores"),
    run.metrics.map((metric) => h("option", { value: metric.name }, metric.short)),
    h("option", { value: "id" }, "Image id"));
  const order = h("select", { id: "order", onchange: () => fill() }, h("option", { value: "1" }, "Best first"), h("option", { value: "-1" }, "Worst first"));
  const higher = Object.fromEntries(run.metrics.map((metric) => [metric.name, metric.higher]));

  function fill() {
    const word = find.value.trim().toLowerCase();
    const key = sort.value;
    const value = (scan) => (key === "id" ? -scan.id : key === "overall" ? scan.overall : scan.values[key] * (higher[key] ? 1 : -1));
    const shown = run.scans
      .filter((scan) => `${scan.captions.join("\n")}\n${scan.caption ?? ""}\n${scan.id}`.toLowerCase().includes(word))
      .sort((a, b) => Number(order.value) * (value(b) - value(a)) || a.id - b.id);
    list.replaceChildren(...shown.map((scan) => h("li", {}, h("button", {
      type: "button", "data-id": scan.id, "aria-current": String(scan.id === state.id), onclick: () => pick(scan.id),
    }, h("img", { src: url("seen", scan.id), alt: "", width: 44, height: 44, loading: "lazy" }),
    scan.picture && h("img", { src: url("decoded", scan.id), alt: "", width: 44, height: 44, loading: "lazy" }),
    h("span", {}, scan.captions[0] ?? `image ${scan.id}`)))));
    count.textContent = `${shown.length} of ${run.scans.length} test scans`;
    return shown;
  }

  function step(by) {
    const ids = [...list.querySelectorAll("button")].map((button) => Number(button.dataset.id));
    if (ids.length) pick(ids[(ids.indexOf(state.id) + by + ids.length) % ids.length]);
  }

  const own = h("input", {
    type: "file", id: "own-scan", accept: ".npy",
    onchange: async () => {
      const [file] = own.files;
      if (!file) return;
      try {
        const answer = await upload("scan", file);
        Object.assign(state, { scan: answer.scan });
        title.textContent = file.name;
        seen.element.hidden = true;
        for (const element of [beside.parentElement, values.parentElement, truths]) element.hidden = true;
        decoded.show(null, "", "decoding");
        decode();
      } catch (error) {
        rest(error.message);
      }
      own.value = "";
    },
  });
  const finder = h("details", { class: "finder card-box", open: !matchMedia("(max-width: 820px)").matches },
    h("summary", {}, h("h2", {}, "Test scans")),
    h("div", { class: "finder-controls" },
      h("label", { for: "find" }, "Find"), find,
      h("label", { for: "sort" }, "Sort by"), sort,
      h("label", { for: "order" }, "Order"), order),
    count, list,
    h("p", { class: "own" }, h("label", { for: "own-scan" }, `Or a scan of your own (.npy, ${run.voxels.toLocaleString("en")} voxels)`), own));

  const page = h("div", { class: "scan" },
    finder,
    h("section", { class: "stage", "aria-label": "Scan" },
      h("div", { class: "stage-head" }, title,
        h("div", { class: "buttons" },
          h("button", { type: "button", onclick: () => step(-1) }, "Previous"), h("button", { type: "button", onclick: () => step(1) }, "Next"))),
      h("div", { class: "looks-pair" }, seen.element, decoded.element),
      h("div", { class: "working" }, status, progress, cancel),
      h("div", { class: "film-box" }, h("h2", {}, "Denoising, step by step"), film),
      sentencesBox, truths,
      h("div", {}, h("h2", {}, "Controls and ceilings of this image"), beside),
      h("div", {}, h("h2", {}, "Scores of this image"), values)),
    h("section", { class: "panel card-box", "aria-label": "Settings" },
      h("h2", {}, "Settings"),
      settingsPanel(run, settings, later(MOVING, decode)),
      h("div", { class: "copies" },
        h("button", { type: "button", onclick: () => copy(python.textContent, say, "Python") }, "Copy as Python"),
        h("button", { type: "button", onclick: () => copy(command.textContent, say, "Command") }, "Copy as command"),
        keep),
      h("details", {}, h("summary", {}, "Python"), python),
      h("details", {}, h("summary", {}, "Command"), command)));
  const first = fill()[0];
  pick(first ? first.id : state.id);
  return { page, title: "Scan", settings };
}
