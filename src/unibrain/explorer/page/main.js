// Which page is shown: the address behind # says it. A page that was opened stays as it was left.

import { get } from "./api.js";
import { brainPage } from "./brain.js";
import { comparePage } from "./compare.js";
import { h } from "./dom.js";
import { numbersPage } from "./numbers.js";
import { scanPage } from "./scan.js";

const main = document.getElementById("main");
const opened = new Map();

function failed(error) {
  main.replaceChildren(h("h1", {}, "This cannot be shown"), h("p", { class: "lead", role: "alert" }, error.message));
}

async function begin() {
  const run = await get("/api/run");
  document.getElementById("banner").hidden = !run.simulated;
  document.getElementById("about").textContent = `${run.run} · ${run.subject}${run.simulated ? " (simulated)" : ""} · backbone ${run.backbone}`;
  const scan = scanPage(run);
  const pages = { scan: () => scan, brain: () => brainPage(run), compare: () => comparePage(run, scan.settings), numbers: () => numbersPage(run) };

  async function show(focus) {
    const asked = location.hash.slice(1);
    if (asked === "main") return;
    const name = Object.hasOwn(pages, asked) ? asked : "scan";
    for (const link of document.querySelectorAll(".bar nav a")) {
      if (link.hash === `#${name}`) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    try {
      if (!opened.has(name)) opened.set(name, pages[name]());
      const { page, title } = await opened.get(name);
      main.replaceChildren(page);
      document.title = `${title}: UniBrain explorer`;
      if (focus) main.focus({ preventScroll: true });
      window.scrollTo(0, 0);
    } catch (error) {
      opened.delete(name);
      failed(error);
    }
  }

  window.addEventListener("hashchange", () => show(true));
  await show(false);
}

begin().catch(failed);
