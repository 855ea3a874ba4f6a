// Two settings, or two runs, side by side: the same scans, and paired differences.

import { start } from "./api.js";
import { choices, h } from "./dom.js";
import { asked, ownSettings, settingsPanel } from "./settings.js";
import { findings } from "./tables.js";

export function comparePage(run, current) {
  const state = { job: null };
  const first = ownSettings(run);
  const second = structuredClone(current);
  const status = h("p", { class: "status", role: "status" });
  const progress = h("progress", { max: 1, value: 0, "aria-label": "Decoding", hidden: true });
  const cancel = h("button", { type: "button", hidden: true, onclick: () => { state.job?.stop(); rest("Cancelled."); } }, "Cancel");
  const result = h("div", { class: "compare-result" });
  const images = h("input", { type: "number", id: "images", min: 2, max: Math.min(200, run.scans.length), value: Math.min(12, run.scans.length) });

  function rest(text) {
    progress.hidden = cancel.hidden = true;
    status.textContent = text;
  }

  function go(body) {
    state.job?.stop();
    result.replaceChildren();
    const began = performance.now();
    const job = start("/api/compare", body, (event) => {
      if (state.job !== job) return;
      if (event.steps) progress.value = event.step / event.steps;
      status.textContent = event.steps ? `${event.of}: ${event.kind}s of ${event.scans} scans, step ${event.step} of ${event.steps}` : `${event.of}: scores`;
    }, (now) => {
      if (state.job !== job || now.state === "done") return;
      progress.hidden = cancel.hidden = false;
      if (now.ahead) status.textContent = `Waiting: ${now.ahead} before this one.`;
    });
    state.job = job;
    job.done.then((answer) => {
      if (state.job !== job || answer === null) return;
      result.replaceChildren(...findings(answer.result));
      rest(`Done in ${((performance.now() - began) / 1000).toFixed(1)} s.`);
    }).catch((error) => {
      if (state.job === job) rest(error.message);
    });
  }

  const bySettings = h("div", {},
    h("div", { class: "sides-form" },
      h("section", { class: "card-box", "aria-label": "Settings A" }, h("h2", {}, "A"), settingsPanel(run, first, () => {}, { compact: true })),
      h("section", { class: "card-box", "aria-label": "Settings B" }, h("h2", {}, "B"), settingsPanel(run, second, () => {}, { compact: true }))),
    h("p", { class: "go" }, h("label", { for: "images" }, "Test scans"), images,
      h("button", { type: "button", class: "primary", onclick: () => go({ images: Number(images.value), first: asked(first), second: asked(second) }) }, "Compare A and B")));
  const byRuns = h("div", { hidden: true }, run.others.length
    ? run.others.map((name) => h("p", { class: "go" }, h("button", { type: "button", class: "primary", onclick: () => go({ run: name }) }, `${run.run} beside ${name}`)))
    : h("p", {}, "No other run was named. Start the explorer with ", h("code", {}, `unibrain explore ${run.folder} --beside OTHER`), "."));
  const page = h("div", { class: "compare" },
    h("h1", {}, "The same scans, side by side"),
    choices("What to compare", [["settings", "Two settings"], ["runs", "Two runs"]], "settings", (name) => {
      bySettings.hidden = name !== "settings";
      byRuns.hidden = name === "settings";
    }),
    bySettings, byRuns,
    h("div", { class: "working" }, status, progress, cancel), result);
  return { page, title: "Compare" };
}
