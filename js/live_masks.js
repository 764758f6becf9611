/** Under a sampler that runs: the mask of each manipulated step and the heat map it was made from, as soon as they are there. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addPanel, createElement, growToFit, nodeAt } from "./panel.js";
import { isInFront, isOfWorkflowInFront } from "./runs.js";
import { translated } from "./texts.js";

// The server's message: { node, run, workflow, step, steps, inside, mask, heat }; mask and heat are data URLs.
const STEP = "explainable_latents.step";
const HEIGHT = 156;
const WIDTH = 260;
const MOST_KEPT = 50; // samplers; of older ones the masks are forgotten

const strips = new WeakMap(); // sampler node, of any kind -> its Strip
const kept = new Map(); // workflow and execution id, as one text -> the messages of that sampler's last run

class Strip {
  constructor(node) {
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

  add(message) {
    if (!goesOn(this.last, message)) this.clear();
    this.last = message;
    const { step, steps, inside, mask, heat } = message;
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

/** Whether a message is of the same sampling as the one before: of a list of latents each is sampled from its first step. */
const goesOn = (before, { node, run, step }) => before?.node === node && before.run === run && before.step < step;

const keyOf = (executionId) => `${(app.rootGraph ?? app.graph).id} ${executionId}`;

function show(message) {
  const node = nodeAt(message.node);
  if (!node || node.isSubgraphNode?.()) return;
  if (!strips.has(node)) strips.set(node, new Strip(node));
  strips.get(node).add(message);
}

api.addEventListener(STEP, ({ detail: message }) => {
  if (!isInFront(message.workflow)) return;
  const key = keyOf(message.node);
  const before = kept.get(key) ?? [];
  kept.delete(key); // so that it becomes the newest
  kept.set(key, goesOn(before.at(-1), message) ? [...before, message] : [message]);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  show(message);
});

// A node that is run again has no masks of that run yet.
api.addEventListener("executing", ({ detail: executionId }) => {
  if (!executionId || !isOfWorkflowInFront()) return;
  kept.delete(keyOf(executionId));
  strips.get(nodeAt(executionId))?.clear();
});

app.registerExtension({
  name: "explainable_latents.live_masks",
  /** Undo, redo and a change of the workflow put other nodes in the place of those that had the masks. */
  afterConfigureGraph() {
    for (const [key, messages] of [...kept]) {
      if (key === keyOf(messages[0].node)) messages.forEach(show);
    }
  },
});
