// The exported gallery: sorts, finds, and moves through a sweep. A plain script: pages on a disk may not load modules.
(() => {
  "use strict";
  const list = document.getElementById("cards");
  const cards = [...list.children];
  const [sort, order, find, status, form] = ["sort", "order", "find", "status", "controls"].map((id) => document.getElementById(id));
  const words = new Map(cards.map((card) => [card, card.textContent.toLowerCase()]));
  const names = { id: "data-id", overall: "data-overall" };

  function show() {
    const { value, dataset } = sort.selectedOptions[0];
    const attribute = names[value] ?? `data-score-${value.toLowerCase()}`;
    const sign = Number(dataset.sign) * Number(order.value);
    const key = (card) => Number(card.getAttribute(attribute));
    list.append(...[...cards].sort((a, b) => sign * (key(a) - key(b)) || a.dataset.id - b.dataset.id));
    const word = find.value.trim().toLowerCase();
    for (const card of cards) card.hidden = !words.get(card).includes(word);
    status.textContent = `${cards.filter((card) => !card.hidden).length} of ${cards.length} images`;
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  for (const control of [sort, order, find]) control.addEventListener("input", show);
  show();

  for (const sweep of document.querySelectorAll(".sweep")) {
    const control = sweep.querySelector(".sweep-control");
    const range = control.querySelector("input");
    const rows = [...sweep.querySelectorAll("[data-setting]")];
    const move = () => {
      rows.forEach((row, number) => { row.hidden = number !== Number(range.value); });
      control.querySelector("output").textContent = rows[range.value].dataset.setting;
      range.setAttribute("aria-valuetext", rows[range.value].dataset.setting);
    };
    if (rows.length < 2) continue;
    control.hidden = false;
    range.addEventListener("input", move);
    move();
  }
})();
