/**
 * Under a sampler that runs, as soon as they are there: the mask of each manipulated step and the heat map it was made
 * from, and the picture that was predicted at each pause.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addPanel, createElement, growToFit, nodeAt } from "./panel.js";
import { ifOfWorkflowInFront, isInFront } from "./runs.js";
import { Strip } from "./strip.js";
import { translated } from "./texts.js";

// The server's message: { node, run, workflow, step, steps, inside, mask, heat }; mask and heat are data URLs.
const STEP = "explainable_latents.step";
const PAUSE = "explainable_latents.pause"; // see nodes/host/pauses/messages.py
const HEIGHT = 156;
const WIDTH = 260;
const MOST_KEPT = 50; // samplers; of older ones the masks are forgotten

const strips = new WeakMap(); // sampler node, of any kind -> its RunStrip
const kept = new Map(); // workflow and execution id, as one text -> the messages of that sampler's last run

class RunStrip {
  constructor(node) {
    this.strip = new Strip(translated("Pictures of this run"));
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.root = createElement("div", {}, this.strip.list, this.note);
    addPanel(node, "live masks", this.root, () => HEIGHT);
    growToFit(node, this.root, HEIGHT, WIDTH);
  }

  /** Forget the masks of the run before: none may stand under a sampler that makes another one. */
  clear() {
    this.last = undefined;
    this.strip.clear();
    this.note.textContent = "";
  }

  add(message) {
    const replaces = completes(this.last, message);
    if (!replaces && !goesOn(this.last, message)) this.clear();
    this.last = message;
    const { step, steps, inside, mask, heat, picture } = message;
    const percent = Math.round(100 * inside);
    const numbers = { n: step, all: steps, percent };
    const text = translated(mask ? "step {n} of {all}: {percent} % inside" : "Paused at step {n}/{all}", numbers);
    const pictures = [
      [picture, translated("what the model predicts now")],
      [mask, translated("mask")],
      [heat, translated("heat map")],
    ].filter(([src]) => src);
    this.strip.add({ pictures, text, caption: mask ? `${step} · ${percent} %` : `${step} · ⏸`, replaces });
    this.note.textContent = text;
  }
}

const isOfRun = (before, { node, run }) => before?.node === node && before.run === run;

/** Whether a message is of the same sampling as the one before: of a list of latents each is sampled from its first step. */
const goesOn = (before, message) => isOfRun(before, message) && before.step < message.step;

/** Whether it says more of the pause before it, or says it again. */
const completes = (before, message) => isOfRun(before, message) && !before.mask && before.step === message.step;

const keyOf = (executionId) => `${(app.rootGraph ?? app.graph).id} ${executionId}`;

function show(message) {
  const node = nodeAt(message.node);
  if (!node || node.isSubgraphNode?.()) return;
  if (!strips.has(node)) strips.set(node, new RunStrip(node));
  strips.get(node).add(message);
}

function keep(message) {
  if (!isInFront(message.workflow)) return;
  const key = keyOf(message.node);
  const before = kept.get(key) ?? [];
  const last = before.at(-1);
  const whole = completes(last, message) ? { ...message, picture: message.picture ?? last.picture } : message;
  kept.delete(key); // so that it becomes the newest
  if (whole !== message) kept.set(key, [...before.slice(0, -1), whole]);
  else kept.set(key, goesOn(last, message) ? [...before, message] : [message]);
  if (kept.size > MOST_KEPT) kept.delete(kept.keys().next().value);
  show(whole);
}

api.addEventListener(STEP, ({ detail: message }) => keep(message));

api.addEventListener(PAUSE, ({ detail: { node, run, workflow, step, steps, kind, pictures } }) => {
  if (kind !== "end" && pictures.length) keep({ node, run, workflow, step, steps, picture: pictures[0] });
});

// A node that is run again has no masks of that run yet.
api.addEventListener("executing", ({ detail: executionId }) => {
  if (!executionId) return;
  ifOfWorkflowInFront((run) => {
    const key = keyOf(executionId);
    if (kept.get(key)?.at(-1).run === run) return; // there are some by now
    kept.delete(key);
    strips.get(nodeAt(executionId))?.clear();
  });
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
