// A scan that nobody was scanned for: voxels painted on a map, regions set by slider, and what is decoded from it.

import { get, start, upload } from "./api.js";
import { choices, copy, h, later, look, number } from "./dom.js";
import { asked, ownSettings } from "./settings.js";

const MOVING = 350;
const RANGE = 4;

export async function brainPage(run) {
  const map = await get("/api/map");
  const settings = ownSettings(run);
  const regions = new Map();
  const painted = new Float32Array(run.voxels);
  const history = [];
  const names = Array.from({ length: run.voxels }, () => []);
  for (const region of map.regions) for (const voxel of region.voxels) names[voxel].push(region.name);
  const state = { brush: 2, radius: 1.5, erase: false, shown: null, cursor: null, down: false, job: null, parts: false };

  const still = look("No region active");
  const active = look("Active", "is-decoded");
  const status = h("p", { class: "status", role: "status" });
  const place = h("p", { class: "quiet place" }, "Paint, or move to a voxel to see its region.");
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Denoising", hidden: true });
  const cancel = h("button", { type: "button", hidden: true, onclick: () => { state.job?.stop(); rest("Cancelled."); } }, "Cancel");
  const parts = h("div", { class: "parts" });
  const shift = h("dl", { class: "values scan-values" });
  const python = h("pre", { tabindex: "0", "aria-label": "Python" });
  const keep = h("a", { class: "button", hidden: true }, "Save the scan (.npy)");
  const say = (text) => { status.textContent = text; };

  function rest(text) {
    progress.hidden = cancel.hidden = true;
    active.busy(false);
    say(text);
  }

  // The map
  const canvas = h("canvas", {
    class: "map", tabindex: "0", role: "application",
    "aria-label": `Map of ${run.voxels} voxels. Arrow keys move the brush, space paints, Delete clears. The region sliders do the same without a map.`,
  });
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  let scale = 1;

  function value(voxel) {
    let sum = painted[voxel];
    for (const name of names[voxel]) sum += regions.get(name) ?? 0;
    return sum;
  }

  function draw() {
    const width = canvas.clientWidth || 600;
    const ratio = window.devicePixelRatio || 1;
    scale = width / map.width;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(map.height * scale * ratio);
    const pen = canvas.getContext("2d");
    pen.scale(scale * ratio, scale * ratio);
    const [idle, up, down, mark, ink] = ["--idle", "--up", "--down", "--accent", "--quiet"].map(colour);
    const gap = map.kind === "slices" ? 0.1 : 0;
    map.x.forEach((x, site) => {
      const voxel = map.voxel[site];
      const now = value(voxel);
      const box = [x, map.y[site], map.size - gap, map.size - gap];
      pen.globalAlpha = 1;
      pen.fillStyle = idle;
      pen.fillRect(...box);
      if (now) {
        pen.globalAlpha = Math.min(1, 0.25 + Math.abs(now) / RANGE);
        pen.fillStyle = now > 0 ? up : down;
        pen.fillRect(...box);
      }
      if (state.shown && names[voxel].includes(state.shown)) {
        pen.globalAlpha = 1;
        pen.strokeStyle = mark;
        pen.lineWidth = map.size * 0.16;
        pen.strokeRect(x + map.size * 0.1, map.y[site] + map.size * 0.1, (map.size - gap) * 0.85, (map.size - gap) * 0.85);
      }
    });
    pen.globalAlpha = 1;
    pen.fillStyle = ink;
    pen.font = `${Math.min(11 / scale, map.letters)}px ${getComputedStyle(document.body).fontFamily}`;
    for (const panel of map.panels) pen.fillText(panel.label, panel.x, panel.y);
    if (state.cursor) {
      pen.strokeStyle = mark;
      pen.lineWidth = 2 / scale;
      pen.beginPath();
      pen.arc(state.cursor.x, state.cursor.y, Math.max(state.radius * map.size, map.size * 0.6), 0, 2 * Math.PI);
      pen.stroke();
    }
  }

  const redraw = () => requestAnimationFrame(draw);

  function sites(point) {
    const reach = Math.max(state.radius * map.size, map.size * 0.6);
    const found = [];
    map.x.forEach((x, site) => {
      const across = x + map.size / 2 - point.x;
      const down = map.y[site] + map.size / 2 - point.y;
      if (across * across + down * down <= reach * reach) found.push(map.voxel[site]);
    });
    return found;
  }

  function tell(point) {
    const voxels = sites(point);
    const inside = [...new Set(voxels.flatMap((voxel) => names[voxel]))];
    place.textContent = voxels.length
      ? `${voxels.length === 1 ? `voxel ${voxels[0]}` : `${voxels.length} voxels`}${inside.length ? `: ${inside.join(", ")}` : ", in no region"}`
      : "Outside of the mask: there is no voxel to paint here.";
  }

  function paint(point) {
    const voxels = sites(point);
    for (const voxel of voxels) painted[voxel] = state.erase ? 0 : state.brush;
    tell(point);
    redraw();
    return voxels.length;
  }

  const remember = () => {
    history.push(painted.slice());
    if (history.length > 50) history.shift();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / scale, y: (event.clientY - box.top) / scale };
  };
  canvas.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    canvas.setPointerCapture(event.pointerId);
    remember();
    state.down = true;
    state.cursor = at(event);
    paint(state.cursor);
  });
  canvas.addEventListener("pointermove", (event) => {
    state.cursor = at(event);
    if (state.down) paint(state.cursor);
    else {
      tell(state.cursor);
      redraw();
    }
  });
  canvas.addEventListener("pointerup", () => {
    state.down = false;
    decodeSoon();
  });
  canvas.addEventListener("pointerleave", () => {
    state.cursor = null;
    redraw();
  });
  canvas.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    state.cursor ??= { x: map.x[0] + map.size / 2, y: map.y[0] + map.size / 2 };
    if (moves[event.key]) {
      state.cursor.x += moves[event.key][0] * map.size;
      state.cursor.y += moves[event.key][1] * map.size;
      tell(state.cursor);
    } else if (event.key === " " || event.key === "Enter") {
      remember();
      if (paint(state.cursor)) decodeSoon();
    } else if (event.key === "Delete" || event.key === "Backspace") clear();
    else return;
    event.preventDefault();
    redraw();
  });

  function undo() {
    if (!history.length) return;
    painted.set(history.pop());
    redraw();
    decodeSoon();
  }

  function clear() {
    remember();
    painted.fill(0);
    regions.clear();
    for (const input of sliders.querySelectorAll("input")) input.value = 0;
    for (const output of sliders.querySelectorAll("output")) output.textContent = "0.0";
    redraw();
    decodeSoon();
  }

  // The regions
  const sliders = h("div", { class: "region-sliders" }, map.regions.map((region, n) => {
    const output = h("output", { for: `region-${n}` }, "0.0");
    const input = h("input", {
      type: "range", id: `region-${n}`, min: -RANGE, max: RANGE, step: 0.5, value: 0, "data-region": region.name,
      oninput: () => {
        if (Number(input.value)) regions.set(region.name, Number(input.value));
        else regions.delete(region.name);
        output.textContent = Number(input.value).toFixed(1);
        redraw();
        decodeSoon();
      },
      onfocus: () => { state.shown = region.name; redraw(); },
      onblur: () => { state.shown = null; redraw(); },
    });
    return h("div", { class: "slider", onpointerenter: () => { state.shown = region.name; redraw(); }, onpointerleave: () => { state.shown = null; redraw(); } },
      h("label", { for: `region-${n}` }, region.name, " ", h("span", { class: "quiet" }, `${region.voxels.length} voxels`)), output, input);
  }));

  function body() {
    const voxels = [...painted.keys()].filter((voxel) => painted[voxel]);
    return {
      regions: Object.fromEntries(regions),
      painted: { voxels, values: voxels.map((voxel) => painted[voxel]) },
      contributions: state.parts,
      settings: asked(settings),
    };
  }

  function part(one) {
    const items = one.items;
    return h("figure", { class: "part" },
      items.picture && h("img", { src: items.picture.item, alt: `Without ${one.region}: ${items.caption?.item ?? "no caption"}`, width: 128, height: 128 }),
      h("figcaption", {}, h("strong", {}, `without ${one.region}`), h("span", {}, items.caption?.item ?? "")),
      h("dl", {}, Object.entries(one.moved).map(([name, size]) => {
        const bar = h("span", { class: "scale-fill" });
        bar.style.width = `${Math.min(100, 100 * (size ?? 0))}%`;
        return h("div", {}, h("dt", {}, name), h("dd", {}, h("span", { class: "scale", "aria-hidden": "true" }, bar), number(size, 2)));
      })));
  }

  function whole({ items, nothing, moved }) {
    active.show(items.picture?.item, items.caption?.item);
    still.show(nothing.picture?.item, nothing.caption?.item);
    shift.replaceChildren(...Object.entries(moved).map(([name, size]) => h("div", {}, h("dt", {}, name), h("dd", {}, number(size, 2)))));
  }

  function decode() {
    state.job?.stop();
    const began = performance.now();
    const latest = {};
    if (state.parts) parts.replaceChildren();
    const job = start("/api/activate", body(), (event) => {
      if (state.job !== job) return;
      if (event.part) return parts.append(part(event.part));
      if (event.whole) return whole(event.whole);
      const which = event.of === "nothing" ? still : event.of ? null : active;
      if (event.final === undefined) progress.value = event.step / event.steps;
      const shown = (latest[event.of] ??= {});
      shown[event.kind] = event.final ?? event.item;
      which?.show(shown.picture, shown.caption, event.final === undefined ? `step ${event.step} of ${event.steps}` : "");
    }, (now) => {
      if (state.job !== job || now.state === "done") return;
      progress.hidden = cancel.hidden = false;
      active.busy(true);
      say(now.ahead ? `Waiting: ${now.ahead} before this one.` : "Decoding.");
    });
    state.job = job;
    job.done.then((answer) => {
      if (state.job !== job || answer === null) return;
      state.job = null;
      const { parts: found } = answer.result;
      whole(answer.result);
      parts.replaceChildren(...found.map(part));
      parts.parentElement.hidden = !state.parts;
      if (state.parts && !found.length) parts.replaceChildren(h("p", { class: "quiet" }, "No region has an active voxel."));
      python.textContent = answer.recipe.python;
      keep.hidden = false;
      keep.href = `/api/scans/${answer.scan}`;
      rest(`Decoded in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
    }).catch((error) => {
      if (state.job === job) rest(error.message);
    });
  }
  const decodeSoon = later(MOVING, () => { state.parts = false; decode(); });

  const file = h("input", {
    type: "file", id: "mask-file", accept: ".npy",
    onchange: async () => {
      const [mask] = file.files;
      if (!mask) return;
      try {
        const answer = await upload("mask", mask);
        remember();
        painted.fill(0);
        answer.painted.voxels.forEach((voxel, n) => { painted[voxel] = answer.painted.values[n]; });
        redraw();
        decodeSoon();
      } catch (error) {
        rest(error.message);
      }
      file.value = "";
    },
  });
  const range = (title, id, min, max, step, now, onMove) => {
    const output = h("output", { for: id }, now.toFixed(1));
    const input = h("input", { type: "range", id, min, max, step, value: now, oninput: () => { output.textContent = Number(input.value).toFixed(1); onMove(Number(input.value)); } });
    return h("div", { class: "slider" }, h("label", { for: id }, title), output, input);
  };

  new ResizeObserver(redraw).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  const page = h("div", { class: "brain" },
    h("section", { class: "card-box brain-map", "aria-labelledby": "brain-title" },
      h("h1", { id: "brain-title" }, "Paint activation"),
      h("p", { class: "quiet" }, map.kind === "flat" ? "The flattened cortex (fsaverage5). " : "Slices of the volume, the lowest first, front up. ",
        "Orange is above a voxel's mean over the training scans, blue below."),
      canvas, place,
      h("div", { class: "brush" },
        range("Brush value", "brush", -RANGE, RANGE, 0.5, state.brush, (now) => { state.brush = now; }),
        range("Size", "radius", 0.5, 6, 0.5, state.radius, (now) => { state.radius = now; redraw(); }),
        choices("Brush", [["paint", "Paint"], ["erase", "Erase"]], "paint", (name) => { state.erase = name === "erase"; }),
        h("button", { type: "button", onclick: undo }, "Undo"),
        h("button", { type: "button", onclick: clear }, "Clear all")),
      h("p", { class: "own" }, h("label", { for: "mask-file" }, "Or a painted mask (.npy, one number per voxel or a volume)"), file)),
    h("section", { class: "brain-result", "aria-label": "What is decoded" },
      h("div", { class: "looks-pair" }, still.element, active.element),
      h("div", { class: "working" }, status, progress, cancel),
      h("p", { class: "quiet" }, "Nobody saw anything in such a scan: it shows what the decoder makes of it, which need not be what the region does in a brain. Both have the same noise."),
      h("div", {}, h("h2", {}, "How far each latent moves"),
        h("p", { class: "quiet" }, "1: as far as the scan of a test image moves it."), shift),
      h("div", { class: "copies" },
        h("button", { type: "button", onclick: () => { state.parts = true; parts.parentElement.hidden = false; decode(); } }, "What does each region add?"),
        keep,
        h("button", { type: "button", onclick: () => copy(python.textContent, say, "Python") }, "Copy as Python")),
      h("details", {}, h("summary", {}, "Python"), python),
      h("div", { hidden: true }, h("h2", {}, "What each region adds"),
        h("p", { class: "quiet" }, "The same scan with one region back at its mean, and how far that moves each latent."), parts)),
    h("section", { class: "card-box brain-regions", "aria-labelledby": "regions-title" },
      h("h2", { id: "regions-title" }, "Regions, in deviations"),
      map.regions.length ? sliders : h("p", {}, "This run has no regions.")));
  decode();
  return { page, title: "Brain" };
}
