/** The steps of `manipulate_at` as ticks on a bar of the run: dragged by mouse, moved by keyboard, written into the input. */

import { app } from "../../scripts/app.js";
import { addPanel, afterCall, asOneStep, createElement, growToFit } from "./panel.js";
import "./presets.js"; // the chooser stands above the bar
import { translated } from "./texts.js";

const NODES = new Set(["ELMaskedLatentKSampler", "ELMaskedLatentModel"]);
const INPUT = "manipulate_at";
const HEIGHT = 118;
const WIDTH = 260;
// As nodes/core/methods/masked_latent.py reads it: a step, a range of steps, or a share of the run.
const ITEM = /^(\d+)(?:\s*-\s*(\d+))?$|^(\d+(?:\.\d+)?)\s*%$/;
const UNPLACED =
  "Step numbers have no place here, as the sampler says how many steps there are; shares (15%) have.";
const MOVES = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };

/** The items of the text: { ends: [number, ...], isShare }, one end or the two of a range; null if one cannot be read. */
export function readSteps(text) {
  const items = [];
  for (const part of text.split(",").map((each) => each.trim())) {
    if (!part) continue;
    const found = ITEM.exec(part);
    if (!found) return null;
    const [, first, last, share] = found;
    const ends = share === undefined ? [first, last ?? []].flat().map(Number) : [Number(share)];
    if (share > 100 || ends[0] > ends[1]) return null;
    items.push({ ends, isShare: share !== undefined });
  }
  return items;
}

export function writeSteps(items) {
  return items.map(({ ends, isShare }) => ends.join("-") + (isShare ? "%" : "")).join(", ");
}

class StepsBar {
  constructor(node, input) {
    this.node = node;
    this.input = input;
    const label = translated("Steps at which the latent is replaced");
    this.bar = createElement("div", { class: "el-steps", role: "group", "aria-label": label });
    const adding = { type: "button", text: translated("Add a step"), on: { click: () => this.add() } };
    this.adding = createElement("button", adding);
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.root = createElement("div", {}, this.bar, createElement("div", { class: "el-controls" }, this.adding), this.note);
    addPanel(node, "steps bar", this.root, () => HEIGHT);
    for (const widget of [input, this.steps]) if (widget) afterCall(widget, "callback", () => this.update());
    for (const method of ["onConfigure", "onConnectionsChange"]) afterCall(node, method, () => this.update());
    this.update();
    growToFit(node, this.root, HEIGHT, WIDTH);
  }

  get steps() {
    return this.node.widgets.find((widget) => widget.name === "steps");
  }

  isLinked(name) {
    return this.node.inputs?.some((each) => each.name === name && each.link != null);
  }

  /** How many steps the run makes; undefined where this node does not say it. */
  get total() {
    return this.steps && !this.isLinked("steps") ? this.steps.value : undefined;
  }

  most(item) {
    return item.isShare ? 100 : this.total;
  }

  update() {
    const items = this.isLinked(INPUT) ? null : readSteps(String(this.input.value));
    this.items = items ?? [];
    const isPlaced = (item) => item.isShare || this.total !== undefined;
    const ticks = this.items.flatMap((item) => (isPlaced(item) ? item.ends.map((_, end) => ({ item, end })) : []));
    if (ticks.length !== this.ticks?.length) {
      this.buttons = ticks.map((_, i) => this.button(i));
      this.bar.replaceChildren(...this.buttons);
    }
    this.ticks = ticks;
    ticks.forEach((_, i) => this.place(i));
    this.adding.disabled = items === null;
    this.note.textContent = this.instructions(items, ticks.length);
  }

  instructions(items, count) {
    if (this.isLinked(INPUT)) return translated("The steps come from another node.");
    if (items === null) return translated("The steps cannot be read.");
    const hidden = items.some((item) => !item.isShare) && this.total === undefined;
    if (hidden) return translated(UNPLACED);
    return translated(count ? "Drag, or arrow keys, with Shift further; Delete removes a step, or a range as a whole." : "No step: the latent is never replaced.");
  }

  button(i) {
    return createElement("button", {
      type: "button",
      role: "slider",
      "aria-valuemin": "0",
      on: {
        pointerdown: (event) => {
          event.preventDefault();
          event.currentTarget.setPointerCapture(event.pointerId);
          event.currentTarget.focus();
        },
        pointermove: (event) => event.currentTarget.hasPointerCapture(event.pointerId) && this.drag(i, event),
        lostpointercapture: () => this.write(),
        keydown: (event) => this.key(i, event),
      },
    });
  }

  /** Put a tick where its value is, and say the value. */
  place(i) {
    const { item, end } = this.ticks[i];
    const [value, most, button] = [item.ends[end], this.most(item), this.buttons[i]];
    button.style.left = `${(100 * Math.min(value, most)) / most}%`;
    button.toggleAttribute("data-range", item.ends.length > 1);
    // Some schedulers make a step more or less than the sampler is asked for.
    const step = this.total === undefined ? "" : Math.floor((value * this.total) / 100);
    const shared = step === "" ? "{value} %" : "{value} %, about step {step} of {all}";
    const text = translated(item.isShare ? shared : "step {value} of {all}", { value, step, all: this.total });
    button.setAttribute("aria-valuemax", most);
    button.setAttribute("aria-valuenow", value);
    button.setAttribute("aria-valuetext", text);
    button.setAttribute("aria-label", translated("step {n}", { n: i + 1 }));
    button.title = text;
    button.textContent = item.isShare ? `${value}%` : value;
  }

  /** Give a tick a value, not beyond the other end of its range. */
  set(i, value) {
    const { item, end } = this.ticks[i];
    const [low, high] = [end === 1 ? item.ends[0] : 0, end === 0 && item.ends.length > 1 ? item.ends[1] : this.most(item)];
    item.ends[end] = Math.max(low, Math.min(high, Math.round(value)));
    this.place(i);
  }

  drag(i, event) {
    const box = this.bar.getBoundingClientRect(); // the page may be scaled
    this.set(i, (this.most(this.ticks[i].item) * (event.clientX - box.left)) / box.width);
  }

  key(i, event) {
    const { item, end } = this.ticks[i];
    const isRemoved = event.key === "Delete" || event.key === "Backspace";
    if (isRemoved) {
      this.items = this.items.filter((each) => each !== item);
    } else if (event.key === "Home" || event.key === "End") {
      this.set(i, event.key === "Home" ? 0 : this.most(item));
    } else if (MOVES[event.key]) {
      this.set(i, item.ends[end] + MOVES[event.key] * (event.shiftKey ? 5 : 1));
    } else {
      return;
    }
    event.preventDefault();
    this.write();
    // Without the focus the next key would go to the graph, where Delete removes the node.
    if (isRemoved) (this.buttons[Math.min(i, this.buttons.length - 1)] ?? this.adding).focus();
  }

  /** Add a share in the middle of the widest gap between the ticks. */
  add() {
    const shares = this.ticks.map(({ item, end }) => (100 * item.ends[end]) / this.most(item));
    const places = [0, ...shares.sort((a, b) => a - b), 100];
    const gaps = places.slice(1).map((place, i) => [place - places[i], (place + places[i]) / 2]);
    const [, middle] = gaps.reduce((widest, gap) => (gap[0] > widest[0] ? gap : widest));
    this.items.push({ ends: [Math.round(middle)], isShare: true });
    this.write();
  }

  /** Write the ticks into the input, as one step that the user can undo. */
  write() {
    const text = writeSteps(this.items);
    if (text === writeSteps(readSteps(String(this.input.value)) ?? [])) return; // however it is spelled there
    asOneStep(() => {
      this.input.value = text;
      this.input.callback?.(text, app.canvas, this.node);
    });
    this.update();
  }
}

app.registerExtension({
  name: "explainable_latents.steps_bar",
  nodeCreated(node) {
    const input = NODES.has(node.comfyClass) && node.widgets?.find((widget) => widget.name === INPUT);
    if (input) new StepsBar(node, input);
  },
});
