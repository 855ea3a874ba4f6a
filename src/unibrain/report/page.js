// Sorts and filters the gallery. The state is kept in the address (#sort=ssim&order=worst), so that it can be shared.
(() => {
  "use strict";
  const list = document.getElementById("cards");
  const cards = [...list.children];
  const select = document.getElementById("sort");
  const find = document.getElementById("find");
  const status = document.getElementById("status");
  const buttons = [...document.querySelectorAll("#controls [data-order]")];
  const titles = { best: "best first", worst: "worst first", id: "by id" };
  let order = "best";

  const text = new Map(cards.map((card) => [card, card.querySelector(".words").textContent.toLowerCase()]));
  const identity = (card) => Number(card.dataset.id);

  function valueOf(card, key) {
    return Number(card.getAttribute(key === "overall" ? "data-overall" : `data-score-${key.toLowerCase()}`));
  }

  function show() {
    const option = select.selectedOptions[0];
    const sign = Number(option.dataset.direction) * (order === "worst" ? 1 : -1);
    const key = option.value;
    const sorted = [...cards].sort((a, b) =>
      (order === "id" ? 0 : sign * (valueOf(a, key) - valueOf(b, key))) || identity(a) - identity(b));
    list.append(...sorted);

    const word = find.value.trim().toLowerCase();
    let shown = 0;
    for (const card of cards) {
      card.hidden = !text.get(card).includes(word);
      shown += card.hidden ? 0 : 1;
      for (const value of card.querySelectorAll("[data-key]")) {
        value.classList.toggle("is-key", order !== "id" && value.dataset.key === key);
      }
    }
    for (const button of buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.order === order));
    }
    const sorting = order === "id" ? "by id" : `${option.textContent.trim()}, ${titles[order]}`;
    status.textContent = `${shown} of ${cards.length} images, ${sorting}`;
  }

  function remember() {
    const state = new URLSearchParams({ sort: select.value, order });
    try {
      history.replaceState(null, "", `#${state}`);
    } catch {
      // A page without an address of its own, such as a preview in a frame, has nothing to remember.
    }
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    if ([...select.options].some((option) => option.value === state.get("sort"))) select.value = state.get("sort");
    if (Object.hasOwn(titles, state.get("order"))) order = state.get("order");
  }

  select.addEventListener("change", () => {
    if (order === "id") order = "best";
    show();
    remember();
  });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      order = button.dataset.order;
      show();
      remember();
    });
  }
  find.addEventListener("input", show);
  document.getElementById("controls").addEventListener("submit", (event) => event.preventDefault());
  window.addEventListener("hashchange", () => {
    recall();
    show();
  });
  recall();
  show();
})();
