/** A strip of small pictures in a row, the newest last: steps of a run, stops to go back to, pictures of a batch. */

import { createElement } from "./panel.js";

export class Strip {
  /** `label`: what the pictures are of. */
  constructor(label) {
    this.list = createElement("div", { class: "el-strip", role: "list", tabindex: "0", "aria-label": label });
    this.list.dataset.captureWheel = "true"; // otherwise Nodes 2.0 zooms instead of scrolling
  }

  clear() {
    this.list.replaceChildren();
  }

  /**
   * Adds an entry, or puts it in the place of the newest one with `replaces`. pictures: [address, what it is] each.
   * text: what is said of the whole entry. click: makes it a button.
   */
  add({ pictures, text, caption, click, replaces = false }) {
    const alt = (what) => (click ? "" : `${what}, ${text}`); // a button has its own name
    const shown = pictures.map(([src, what]) => createElement("img", { src, alt: alt(what), title: what }));
    if (caption) shown.push(createElement("figcaption", { text: caption }));
    const inside = click ? [createElement("button", { "aria-label": text, title: text, on: { click } }, ...shown)] : shown;
    const figure = createElement("figure", { role: "listitem", title: text }, ...inside);
    if (replaces) this.list.lastElementChild?.remove();
    this.list.append(figure);
    this.list.scrollLeft = this.list.scrollWidth;
  }

  /** Marks one of the buttons as pressed. */
  press(place) {
    [...this.list.querySelectorAll("button")].forEach((each, i) => each.setAttribute("aria-pressed", String(i === place)));
  }
}
