/** Before and after under Compare Images: two pictures with a divider between them that is dragged, and their figures. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { addPanel, afterCall, busyUntil, createElement, growToFit, store } from "./panel.js";
import { ifOfWorkflowInFront } from "./runs.js";
import { translated } from "./texts.js";

// The entry of the node's `ui` output, { files: { name: [{ file, type }] }, figures: { name: [text] }, kept_part }, and
// of its saved properties, where the user's choices are added.
const KEY = "el_compare";
const NAMES = ["reference", "result", "plain"]; // the picture before, after, and what plain img2img gives
const [EMPTY_HEIGHT, HEIGHT, WIDTH] = [54, 340, 300];
// pair: the names on the left and on the right; at: the divider in percent; item: index in the batch
const DEFAULTS = { pair: "reference result", at: 50, item: 0 };
const [MARGIN, LETTERS] = [6, 13]; // of the names on the picture, in pixels of the page

/** Whether it is what a run stores: a workflow file may hold anything. */
function isWhole({ files, figures }) {
  const lists = [files.reference, files.result, figures?.result, ...Object.values(files), ...Object.values(figures ?? {})];
  return lists.every((each) => Array.isArray(each) && each.length);
}

const clamped = (value, most) => Math.max(0, Math.min(most, Math.round(value) || 0));

class Comparison {
  constructor(node) {
    this.node = node;
    this.pictures = null; // name -> its pictures of the batch
    this.chosen = DEFAULTS;
    this.canvas = createElement("canvas", {
      class: "el-compare",
      role: "img",
      on: {
        pointerdown: (event) => this.drag(event),
        pointermove: (event) => event.buttons & 1 && this.drag(event),
        pointerup: () => this.keep(),
      },
    });
    this.divider = this.slider("divider", "Divider between the two pictures, in percent from the left", (at) => ({ at }));
    this.item = this.slider("picture", "picture", (item) => ({ item }));
    this.divider.input.max = 100;
    this.pairs = createElement("span", { class: "el-pairs", role: "group", "aria-label": translated("Pictures to compare") });
    this.controls = createElement("div", { class: "el-controls" }, this.divider.label, this.item.label, this.pairs);
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.root = createElement("div", {}, this.canvas, this.controls, this.note);
    addPanel(node, "compare", this.root, () => (this.pictures ? HEIGHT : EMPTY_HEIGHT));
    afterCall(node, "onConfigure", () => busyUntil(this.root, this.load()));
    afterCall(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    new ResizeObserver(() => this.draw()).observe(this.canvas);
    this.showMessage("Run to compare the pictures here.");
  }

  /** A slider: while it moves the choice is only shown, when it is released the choice is stored. */
  slider(name, label, change) {
    const text = createElement("span", { text: translated(name) });
    const input = createElement("input", { type: "range", min: "0", step: "1", "aria-label": translated(label) });
    input.addEventListener("input", () => this.show(change(Number(input.value))));
    input.addEventListener("change", () => this.keep());
    return { label: createElement("label", {}, text, input), text, input };
  }

  get stored() {
    return this.node.properties[KEY];
  }

  /** Store the choices with the workflow. */
  keep() {
    if (this.pictures) store(this.node, KEY, this.chosen);
  }

  receive(shown) {
    if (!shown) return;
    ifOfWorkflowInFront(() => {
      store(this.node, KEY, { ...this.chosen, ...shown });
      busyUntil(this.root, this.load());
    });
  }

  /** Show the stored files: after a run, and after the page or a workflow was loaded. */
  async load() {
    const { files } = this.stored ?? {};
    if (!files) return;
    if (!isWhole(this.stored)) return this.showMessage("The pictures of the last run are gone: run again.");
    const isOld = () => this.stored?.files !== files; // a newer run has ended meanwhile
    try {
      const names = NAMES.filter((name) => files[name]);
      const pictures = await Promise.all(names.map((name) => Promise.all(files[name].map(picture))));
      if (isOld()) return closeAll(pictures.flat());
      this.forget();
      this.pictures = Object.fromEntries(names.map((name, i) => [name, pictures[i]]));
    } catch (error) {
      if (isOld()) return;
      console.info("explainable-latents: a picture to compare cannot be read:", error);
      return this.showMessage("The pictures of the last run are gone: run again.");
    }
    this.open();
  }

  /** Give the memory of the pictures back at once. */
  forget() {
    closeAll(Object.values(this.pictures ?? {}).flat());
    this.pictures = null;
  }

  showMessage(message) {
    this.forget();
    this.canvas.hidden = this.controls.hidden = true;
    this.note.textContent = translated(message);
    growToFit(this.node, this.root, EMPTY_HEIGHT);
  }

  /** Set up the choices for new pictures, and show them. */
  open() {
    const names = Object.keys(this.pictures);
    const pairs = names.flatMap((left, i) => names.slice(i + 1).map((right) => [left, right]));
    // What plain img2img gives is what the result is to be better than: it stands before it.
    const ordered = pairs.map((pair) => (pair.join(" ") === "result plain" ? pair.toReversed() : pair));
    this.buttons = ordered.map(([left, right]) => {
      const text = translated("{left} | {right}", { left: translated(left), right: translated(right) });
      const pick = () => (this.show({ pair: `${left} ${right}` }), this.keep());
      return { pair: `${left} ${right}`, button: createElement("button", { type: "button", text, on: { click: pick } }) };
    });
    this.pairs.replaceChildren(...this.buttons.map(({ button }) => button));
    this.pairs.hidden = this.buttons.length < 2;
    this.batch = Math.max(...Object.values(this.pictures).map((each) => each.length));
    this.item.input.max = this.batch - 1;
    this.item.label.hidden = this.batch < 2;
    this.canvas.hidden = this.controls.hidden = false;
    growToFit(this.node, this.root, HEIGHT, WIDTH);
    this.show({ ...DEFAULTS, ...this.stored });
  }

  /** Change these choices and show the result. A choice that there is not becomes one that there is. */
  show({ pair, at, item }) {
    pair ??= this.chosen.pair;
    const isThere = this.buttons.some((each) => each.pair === pair);
    this.chosen = {
      pair: isThere ? pair : DEFAULTS.pair,
      at: clamped(at ?? this.chosen.at, 100),
      item: clamped(item ?? this.chosen.item, this.batch - 1),
    };
    for (const each of this.buttons) each.button.setAttribute("aria-pressed", each.pair === this.chosen.pair);
    const [left, right] = this.chosen.pair.split(" ").map((name) => translated(name));
    this.canvas.setAttribute("aria-label", translated("{left} | {right}", { left, right }));
    this.label(this.divider, this.chosen.at, translated("divider {n} %", { n: this.chosen.at }));
    this.label(this.item, this.chosen.item, translated("picture {n} of {all}", { n: this.chosen.item + 1, all: this.batch }));
    const { figures, kept_part: keptPart } = this.stored;
    const line = ([name, values]) => `${translated(name)}: ${values[this.chosen.item % values.length]}`;
    const lines = Object.entries(figures).map(line);
    this.note.textContent = `${translated(keptPart ? "kept part" : "whole picture")} · ${lines.join(" · ")}`;
    this.draw();
  }

  label(slider, value, text) {
    slider.input.value = value;
    slider.input.setAttribute("aria-valuetext", text);
    slider.text.textContent = text;
  }

  /** Put the divider under the pointer. The page may be scaled, and the pictures may fill only a part of the box. */
  drag(event) {
    if (!this.pictures) return;
    if (event.type === "pointerdown") this.canvas.setPointerCapture(event.pointerId);
    const box = this.canvas.getBoundingClientRect();
    const [left, width] = this.place(box.width, box.height);
    this.show({ at: (100 * (event.clientX - box.left - left)) / width });
  }

  /** Where the pictures lie in a box of this size: left, width, top and height. */
  place(width, height) {
    const [picture] = this.pictures.reference;
    const scale = Math.min(width / picture.width, height / picture.height);
    const [w, h] = [picture.width * scale, picture.height * scale];
    return [(width - w) / 2, w, (height - h) / 2, h];
  }

  draw() {
    if (!this.pictures) return;
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    if (!width || !height) return;
    const sharpness = devicePixelRatio * Math.max(1, app.canvas.ds.scale);
    [this.canvas.width, this.canvas.height] = [width * sharpness, height * sharpness];
    const context = this.canvas.getContext("2d");
    context.scale(sharpness, sharpness);
    const [left, w, top, h] = this.place(width, height);
    const at = left + (w * this.chosen.at) / 100;
    const sides = this.chosen.pair.split(" ");
    const spans = [[left, at], [at, left + w]];
    sides.forEach((name, i) => {
      const pictures = this.pictures[name];
      context.save();
      context.beginPath();
      context.rect(spans[i][0], top, spans[i][1] - spans[i][0], h);
      context.clip();
      context.drawImage(pictures[this.chosen.item % pictures.length], left, top, w, h);
      this.name(context, translated(name), i ? left + w - MARGIN : left + MARGIN, top + MARGIN, i ? "right" : "left");
      context.restore();
    });
    for (const [colour, thickness] of [["#000", 3], ["#fff", 1]]) {
      context.fillStyle = colour; // seen on every colour
      context.fillRect(at - thickness / 2, top, thickness, h);
    }
  }

  /** Write a picture's name into its corner, which the divider covers as it covers the picture. */
  name(context, text, x, y, align) {
    context.font = `${LETTERS}px sans-serif`;
    context.textAlign = align;
    context.textBaseline = "top";
    const width = context.measureText(text).width + 6;
    context.fillStyle = "#000a";
    context.fillRect(align === "left" ? x - 3 : x - width + 3, y - 2, width, LETTERS + 5);
    context.fillStyle = "#fff";
    context.fillText(text, x, y);
  }
}

/** A picture of the server's temporary folder. */
async function picture({ file, type }) {
  const answer = await api.fetchApi(`/view?${new URLSearchParams({ filename: file, type })}`);
  if (!answer.ok) throw new Error(`${file}: ${answer.status}`);
  return createImageBitmap(await answer.blob());
}

const closeAll = (bitmaps) => bitmaps.forEach((bitmap) => bitmap.close());

app.registerExtension({
  name: "explainable_latents.compare",
  nodeCreated(node) {
    if (node.comfyClass === "ELCompareImages") new Comparison(node);
  },
});
