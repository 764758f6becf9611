/** Under a sampler that runs: the mask of each manipulated step and the heat map it was made from, as soon as they are there. */

import { api } from "../../scripts/api.js";
import { addPanel, createElement, growToFit, nodeAt } from "./panel.js";
import { isInFront, isOfWorkflowInFront } from "./runs.js";
import { translated } from "./texts.js";

// The server's message: { node, run, workflow, step, steps, inside, mask, heat }; mask and heat are data URLs.
const STEP = "explainable_latents.step";
const HEIGHT = 156;
const WIDTH = 260;

const strips = new WeakMap(); // sampler node, of any kind -> its Strip

class Strip {
  constructor(node) {
    this.node = node;
    const label = translated("Masks of this run");
    this.list = createElement("div", { class: "el-live", role: "list", tabindex: "0", "aria-label": label });
    this.list.dataset.captureWheel = "true"; // otherwise Nodes 2.0 zooms instead of scrolling
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.root = createElement("div", {}, this.list, this.note);
    addPanel(node, "live masks", this.root, () => HEIGHT);
    growToFit(node, this.root, HEIGHT, WIDTH);
  }

  /** Forget the masks of the run before: none may stand under a sampler that makes another one. */
  clear() {
    this.list.replaceChildren();
    this.note.textContent = "";
  }

  add({ run, step, steps, inside, mask, heat }) {
    if (run !== this.run) this.clear();
    this.run = run;
    const percent = Math.round(100 * inside);
    const text = translated("step {n} of {all}: {percent} % inside", { n: step, all: steps, percent });
    const pictures = [
      [mask, translated("mask")],
      [heat, translated("heat map")],
    ].filter(([picture]) => picture);
    const shown = pictures.map(([src, alt]) => createElement("img", { src, alt: `${alt}, ${text}`, title: alt }));
    const caption = createElement("figcaption", { text: `${step} · ${percent} %` });
    this.list.append(createElement("figure", { role: "listitem", title: text }, ...shown, caption));
    this.list.scrollLeft = this.list.scrollWidth;
    this.note.textContent = text;
  }
}

api.addEventListener(STEP, ({ detail: { node: executionId, workflow, ...shown } }) => {
  if (!isInFront(workflow)) return;
  const node = nodeAt(executionId);
  if (!node || node.isSubgraphNode?.()) return;
  if (!strips.has(node)) strips.set(node, new Strip(node));
  strips.get(node).add(shown);
});

// A node that is run again has no masks of that run yet.
api.addEventListener("executing", ({ detail: executionId }) => {
  if (isOfWorkflowInFront()) strips.get(nodeAt(executionId))?.clear();
});
