// Elements, and the few shapes that all pages share. Text is only ever set as text.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "hidden" || name === "checked") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const number = (value, digits = 3) => (value === null || value === undefined ? "–" : value.toFixed(digits));

export const interval = (low, high) => (low === null || low === undefined ? "" : `${number(low)} to ${number(high)}`);

export function later(milliseconds, work) {
  let timer = 0;
  return (...values) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...values), milliseconds);
  };
}

// A picture under a heading, with a sentence below; `show` changes both.
export function look(heading, extra = "") {
  const image = h("img", { alt: "", width: 320, height: 320, decoding: "async" });
  const caption = h("p", { class: "look-caption" });
  const note = h("span", { class: "quiet" });
  const empty = h("p", { class: "look-empty", hidden: true });
  const element = h("figure", { class: `look ${extra}` }, h("figcaption", {}, heading, " ", note), h("div", { class: "look-frame" }, image, empty), caption);
  return {
    element,
    show(source, words, about = "") {
      image.hidden = !source;
      empty.hidden = Boolean(source);
      empty.textContent = source ? "" : about || "no picture";
      if (source) image.src = source;
      image.alt = `${heading}: ${words || "no caption"}`;
      caption.textContent = words ?? "";
      note.textContent = source ? about : "";
    },
    busy(on) {
      element.classList.toggle("is-busy", on);
    },
  };
}

export function choices(label, options, chosen, onChoose) {
  const group = h("div", { class: "buttons", role: "group", "aria-label": label });
  const mark = (name) => {
    for (const button of group.children) button.setAttribute("aria-pressed", String(button.dataset.name === name));
  };
  for (const [name, title] of options) {
    group.append(h("button", { type: "button", "data-name": name, onclick: () => { mark(name); onChoose(name); } }, title));
  }
  mark(chosen);
  return group;
}

export async function copy(text, status, what) {
  try {
    await navigator.clipboard.writeText(text);
    status(`${what} is copied.`);
  } catch {
    status(`The browser does not let pages copy: select the text of “${what}” below.`);
  }
}
