// How a scan is decoded: sliders for each kind, switches for the latents, the seed.

import { choices, h } from "./dom.js";

const SLIDERS = {
  image_weight: { title: "Image weight", about: "CLIP-Image against CLIP-Text tokens", min: 0, max: 1, step: 0.05 },
  strength: { title: "Strength", about: "how far the latent is pushed into noise", min: 0.05, max: 0.95, step: 0.05 },
  guidance_scale: { title: "Guidance scale", about: "how hard the contexts pull; 1 is off", min: 0, max: 15, step: 0.5 },
  guidance_end: { title: "Guidance end", about: "no guidance in this last part of the diffusion", min: 0, max: 1, step: 0.05 },
  steps: { title: "Steps", about: "of the whole diffusion", min: 2, max: 100, step: 1 },
};
const KINDS = { picture: "Picture", caption: "Caption" };

export function ownSettings(run) {
  return {
    use: run.latents.map((latent) => latent.name),
    seed: run.seed,
    sampling: structuredClone(run.sampling),
  };
}

// The body of a request: everything is said, so that it does not depend on what the run decodes with.
export const asked = (settings) => structuredClone(settings);

let panels = 0;

export function settingsPanel(run, settings, onChange, { compact = false } = {}) {
  const prefix = `settings-${++panels}`;
  let kind = run.kinds[0];
  const sliders = h("div", { class: "sliders" });

  const draw = () => {
    sliders.replaceChildren(...Object.entries(SLIDERS).map(([name, slider]) => {
      const value = settings.sampling[kind][name];
      const text = (shown) => (name === "steps" ? String(shown) : Number(shown).toFixed(2));
      const output = h("output", { for: `${prefix}-${name}` }, text(value));
      const input = h("input", {
        type: "range", id: `${prefix}-${name}`, min: slider.min, max: Math.max(slider.max, value), step: slider.step, value,
        "aria-describedby": `${prefix}-${name}-about`, "data-setting": name,
        oninput: () => {
          settings.sampling[kind][name] = Number(input.value);
          output.textContent = text(input.value);
          onChange();
        },
      });
      return h("div", { class: "slider" },
        h("label", { for: `${prefix}-${name}` }, slider.title), output, input,
        h("small", { id: `${prefix}-${name}-about`, hidden: compact }, slider.about));
    }));
  };

  const switches = h("fieldset", { class: "switches" }, h("legend", {}, "Latents that take part"),
    run.latents.map((latent) => h("label", { class: "switch", title: latent.explanation },
      h("input", {
        type: "checkbox", checked: settings.use.includes(latent.name), "data-latent": latent.name,
        onchange: (event) => {
          settings.use = run.latents.map((one) => one.name)
            .filter((name) => (name === latent.name ? event.target.checked : settings.use.includes(name)));
          onChange();
        },
      }), h("span", {}, latent.title))));

  const seed = h("input", {
    type: "number", id: `${prefix}-seed`, min: 0, max: 4294967295, step: 1, value: settings.seed,
    onchange: () => {
      settings.seed = Math.min(4294967295, Math.max(0, Math.round(Number(seed.value) || 0)));
      seed.value = settings.seed;
      onChange();
    },
  });
  const next = h("button", { type: "button", onclick: () => { settings.seed = (settings.seed + 1) % 4294967296; seed.value = settings.seed; onChange(); } }, "Next");
  const reset = h("button", {
    type: "button",
    onclick: () => {
      Object.assign(settings, ownSettings(run));
      for (const box of switches.querySelectorAll("input")) box.checked = true;
      seed.value = settings.seed;
      draw();
      onChange();
    },
  }, "As the run decodes");
  draw();
  return h("div", { class: `settings-panel ${compact ? "is-compact" : ""}` },
    run.kinds.length > 1 && choices("Settings of", run.kinds.map((name) => [name, KINDS[name]]), kind, (name) => { kind = name; draw(); }),
    sliders, switches,
    h("div", { class: "seed" }, h("label", { for: `${prefix}-seed` }, "Seed"), seed, next),
    reset);
}
