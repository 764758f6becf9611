/** The inspector under Saliency Overlay and Show Attention: the words ranked at a place, each word's map, step by step. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import "./chips.js"; // on a node with both, the words stand above the maps
import { Maps } from "./maps.js";
import { MaskTuner, TUNER_HEIGHT } from "./mask_tuner.js";
import { addPanel, afterCall, asOneStep, busyUntil, createElement, growToFit, store } from "./panel.js";
import { ifOfWorkflowInFront } from "./runs.js";
import { translated } from "./texts.js";

// The entry of the node's `ui` output, { file, type }, and of its saved properties, where the user's choices are added.
const KEY = "el_inspector";
const NODES = new Set(["ELSaliencyOverlay", "ELShowAttention"]);
const [EMPTY_HEIGHT, HEIGHT, WIDTH] = [54, 340, 340];
const SIDE = 512; // longer side of the canvas in pixels
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
// frame: index of a step or layer; item: index in the batch; x, y: the chosen place as shares of width and height
const DEFAULTS = { word: "", frame: 0, item: 0, opacity: 0.6, x: 0.5, y: 0.5 };

/** The nearest index from 0 to count - 1; 0 for what is not a number: a workflow file may hold anything. */
const nearestIndex = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value) || 0));

/** Give the memory of pictures back at once. */
const closeAll = (bitmaps) => bitmaps.forEach((bitmap) => bitmap.close());

class Inspector {
  constructor(node) {
    this.node = node;
    this.chosen = { ...DEFAULTS };
    this.pictures = [];
    this.heat = document.createElement("canvas");
    this.tuner = new MaskTuner(this);
    this.build();
    addPanel(node, "inspector", this.root, () => this.height);
    afterCall(node, "onConfigure", () => busyUntil(this.root, this.load()));
    afterCall(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    if (this.opacityInput) afterCall(this.opacityInput, "callback", () => this.maps && this.show(this.givenOpacity()));
    this.showMessage(translated("Run to inspect the maps here."));
  }

  build() {
    this.canvas = createElement("canvas", {
      tabindex: "0",
      role: "application",
      "aria-label": translated("Place in the picture; arrow keys move it, with Shift by four cells"),
      on: {
        pointermove: (event) => this.hover(this.cellAt(event)),
        pointerleave: () => this.hover(this.cell),
        pointerdown: (event) => this.pin(this.cellAt(event)),
        keydown: (event) => this.move(event),
      },
    });
    this.list = createElement("div", { class: "el-words", role: "group", "aria-label": translated("Words, the strongest first") });
    this.list.dataset.captureWheel = "true"; // otherwise Nodes 2.0 zooms instead of scrolling
    this.frame = this.slider("step", (value) => ({ frame: value }));
    this.item = this.slider("picture", (value) => ({ item: value }));
    this.opacity = this.slider("opacity", (value) => ({ opacity: value / 100 }));
    this.opacity.input.addEventListener("change", () => this.giveOpacity());
    const saving = { type: "button", text: translated("Save PNG"), on: { click: () => this.save() } };
    const save = createElement("button", saving);
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.view = createElement("div", { class: "el-view" }, this.canvas, this.list);
    const sliders = [this.frame, this.item, this.opacity].map((slider) => slider.label);
    this.controls = createElement("div", { class: "el-controls" }, ...sliders, save, this.tuner.button);
    this.root = createElement("div", {}, this.view, this.controls, this.note, this.tuner.root);
  }

  /** The panel's least height in pixels. */
  get height() {
    if (!this.maps) return EMPTY_HEIGHT;
    return HEIGHT + (this.tuner.isOpen ? TUNER_HEIGHT : 0);
  }

  /** Make room for what is shown now. */
  resize() {
    growToFit(this.node, this.root, this.height, this.maps ? WIDTH : 0);
  }

  /** What the workflow stores for the inspector. */
  get stored() {
    return this.node.properties[KEY];
  }

  /** Store more with it, as one step that the user can undo. */
  keep(change) {
    store(this.node, KEY, change);
  }

  /** The number of the shown map among those of the run; null if the step or layer lacks the word. */
  get shownMap() {
    return this.maps.index[this.chosen.frame][this.maps.words.indexOf(this.chosen.word)];
  }

  /** The name of the shown step or layer, "" if there is only one. */
  get shownFrame() {
    return this.maps.frames[this.chosen.frame];
  }

  /** A slider: while it moves the choice is only shown, when it is released the choice is stored. */
  slider(name, change) {
    const text = createElement("span", { text: translated(name) });
    const input = createElement("input", { type: "range", min: "0", step: "1", "aria-label": translated(name) });
    input.addEventListener("input", () => this.show(change(Number(input.value))));
    input.addEventListener("change", () => store(this.node, KEY, this.chosen));
    return { label: createElement("label", {}, text, input), text, input };
  }

  /** The node's own input: what the pictures of a run are drawn with, and the inspector too. */
  get opacityInput() {
    return this.node.widgets?.find((widget) => widget.name === "opacity");
  }

  /** The opacity that the node's input says, as a choice; none where another node gives it. */
  givenOpacity() {
    const isLinked = this.node.inputs?.some((input) => input.name === "opacity" && input.link != null);
    return isLinked || !this.opacityInput ? {} : { opacity: this.opacityInput.value };
  }

  /** Write the chosen opacity into the node's input. */
  giveOpacity() {
    if (!("opacity" in this.givenOpacity())) return;
    asOneStep(() => {
      this.opacityInput.value = this.chosen.opacity;
      this.opacityInput.callback?.(this.chosen.opacity, app.canvas, this.node);
    });
  }

  /** Store and load the maps file of a run that has just ended. */
  receive(written) {
    if (!written) return;
    ifOfWorkflowInFront(() => {
      store(this.node, KEY, { ...this.chosen, file: written.file, type: written.type });
      busyUntil(this.root, this.load());
    });
  }

  /** Show the stored maps file: after a run, and after the page or a workflow was loaded. */
  async load() {
    const stored = this.node.properties[KEY];
    if (!stored?.file) return;
    const isOld = () => this.node.properties[KEY]?.file !== stored.file; // a newer run has ended meanwhile
    const query = new URLSearchParams({ filename: stored.file, type: stored.type });
    try {
      const answer = await api.fetchApi(`/view?${query}`);
      if (isOld()) return;
      if (!answer.ok) return this.showMessage(translated("The maps of the last run are gone: run again."));
      const maps = new Maps(await answer.arrayBuffer());
      const pictures = await Promise.all(maps.pictures.map((picture) => createImageBitmap(picture)));
      if (isOld()) return closeAll(pictures);
      closeAll(this.pictures);
      this.maps = maps;
      this.pictures = pictures;
    } catch (error) {
      if (isOld()) return;
      console.warn("explainable-latents: this is not a file of maps:", stored.file, error);
      return this.showMessage(translated("The maps cannot be read: run again."));
    }
    this.open();
  }

  /** Show a message in the place of maps. */
  showMessage(message) {
    this.maps = null;
    closeAll(this.pictures);
    this.pictures = [];
    this.view.hidden = this.controls.hidden = this.tuner.root.hidden = true;
    this.note.textContent = message;
    this.tuner.clear();
    this.resize();
  }

  /** Set up words and sliders for new maps, and show them. */
  open() {
    const { words, frames, batch, width, height } = this.maps;
    this.buttons = words.map((word) => {
      const value = createElement("span");
      const name = createElement("span", { text: word });
      const button = createElement("button", { type: "button", on: { click: () => this.pick(word) } }, name, value);
      return { button, value };
    });
    const scale = SIDE / Math.max(width, height);
    [this.canvas.width, this.canvas.height] = [Math.round(width * scale), Math.round(height * scale)];
    [this.heat.width, this.heat.height] = [width, height];
    this.frame.input.max = frames.length - 1;
    this.frame.label.hidden = frames.length < 2;
    this.item.input.max = batch - 1;
    this.item.label.hidden = batch < 2;
    this.opacity.input.max = 100;
    this.opacity.label.hidden = !this.pictures.length;
    this.view.hidden = this.controls.hidden = false;
    this.tuner.clear();
    const kept = Object.entries(this.stored).filter(([name]) => name in DEFAULTS);
    this.show({ ...DEFAULTS, ...Object.fromEntries(kept), ...this.givenOpacity() });
    this.tuner.restore();
    this.resize();
  }

  /** Change these choices and show the result. A choice that the maps do not offer becomes the nearest that they do. */
  show(change) {
    const { words, frames, batch } = this.maps;
    this.chosen = { ...this.chosen, ...change };
    if (!words.includes(this.chosen.word)) this.chosen.word = words[0];
    this.chosen.frame = nearestIndex(this.chosen.frame, frames.length);
    this.chosen.item = nearestIndex(this.chosen.item, batch);
    this.chosen.opacity = nearestIndex(Math.round(100 * this.chosen.opacity), 101) / 100;
    const { word, frame, item, opacity } = this.chosen;
    words.forEach((each, i) => this.buttons[i].button.setAttribute("aria-pressed", each === word));
    const percent = Math.round(opacity * 100);
    const step = /^step (.*)$/.exec(frames[frame]);
    this.label(this.frame, frame, step ? translated("step {n}", { n: step[1] }) : frames[frame] || translated("all steps"));
    this.label(this.item, item, translated("picture {n} of {all}", { n: item + 1, all: batch }));
    this.label(this.opacity, percent, translated("opacity {n} %", { n: percent }));
    this.showHeat();
    this.tuner.update();
  }

  /** Show the chosen map and its values, refined as often as the tuner says. */
  showHeat() {
    const { word, frame, item } = this.chosen;
    this.maps.power = this.tuner.power;
    const picture = this.maps.picture(this.maps.words.indexOf(word), frame, item);
    this.heat.hidden = !picture; // a layer or step without this word
    if (picture) this.heat.getContext("2d").putImageData(picture, 0, 0);
    this.hover(this.cell);
  }

  label(slider, value, text) {
    slider.input.value = value;
    slider.input.setAttribute("aria-valuetext", text);
    slider.text.textContent = text;
  }

  pick(word) {
    this.show({ word });
    store(this.node, KEY, this.chosen);
  }

  /** The chosen place as [column, row]. */
  get cell() {
    const { width, height } = this.maps;
    return [nearestIndex(this.chosen.x * width, width), nearestIndex(this.chosen.y * height, height)];
  }

  /** The cell under the pointer. The page may be scaled, and the picture may fill only a part of the canvas's box. */
  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const x = (event.clientX - box.left) / scale / this.canvas.width;
    const y = (event.clientY - box.top) / scale / this.canvas.height;
    return this.clampedCell([x * this.maps.width, y * this.maps.height]);
  }

  /** The cell of the map that is nearest to a position. */
  clampedCell([column, row]) {
    const { width, height } = this.maps;
    return [nearestIndex(column, width), nearestIndex(row, height)];
  }

  /** Choose a place and store it. */
  pin([column, row]) {
    const { width, height } = this.maps;
    this.show({ x: (column + 0.5) / width, y: (row + 0.5) / height });
    store(this.node, KEY, this.chosen);
  }

  move(event) {
    const step = MOVES[event.key];
    if (!step) return;
    event.preventDefault();
    const distance = event.shiftKey ? 4 : 1;
    this.pin(this.clampedCell(this.cell.map((at, i) => at + distance * step[i])));
  }

  /** List the words by their value at a cell, the highest first, and mark the cell. */
  rank([column, row]) {
    const { frame, item } = this.chosen;
    const ranked = this.maps.ranked(frame, item, column, row);
    const focused = document.activeElement;
    const highest = ranked[0]?.value || 1;
    const sorted = ranked.map(({ index, value }) => {
      const { button, value: shown } = this.buttons[index];
      shown.textContent = `${value.toFixed(1)} ×`;
      button.style.setProperty("--el-share", `${(100 * value) / highest}%`);
      return button;
    });
    if (sorted.some((button, i) => this.list.children[i] !== button)) {
      this.list.replaceChildren(...sorted);
      if (sorted.includes(focused)) focused.focus();
    }
    this.draw(this.canvas, [column, row]);
  }

  /** Show the words at a place without choosing it. */
  hover(cell) {
    this.rank(cell);
    this.announce(cell);
  }

  /** Name the strongest words at a place in one line, which screen readers read out. */
  announce([column, row]) {
    const ranked = this.maps.ranked(this.chosen.frame, this.chosen.item, column, row).slice(0, 3);
    const words = ranked.map(({ word, value }) => `${word} ${value.toFixed(1)}`).join(", ");
    const place = { column: column + 1, row: row + 1, words };
    this.note.textContent = translated("column {column}, row {row}: {words} (1 = the map's mean)", place);
  }

  /** Draw the picture, the map over it and, if given, a mark at a cell. */
  draw(canvas, cell) {
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    const picture = this.pictures[this.chosen.item % this.pictures.length];
    context.globalAlpha = 1;
    context.clearRect(0, 0, width, height);
    if (picture) context.drawImage(picture, 0, 0, width, height);
    context.globalAlpha = picture ? this.chosen.opacity : 1;
    context.imageSmoothingQuality = "high";
    if (!this.heat.hidden) context.drawImage(this.heat, 0, 0, width, height);
    this.tuner.draw(context);
    if (cell) this.mark(context, cell);
  }

  /** Draw again what is shown. */
  redraw() {
    if (this.maps) this.draw(this.canvas, this.cell);
  }

  /** Draw a black and white box, visible on every colour, around a cell. */
  mark(context, [column, row]) {
    const size = context.canvas.width / this.maps.width;
    context.globalAlpha = 1;
    context.lineWidth = 2;
    for (const [colour, margin] of [["#000", 3], ["#fff", 1]]) {
      context.strokeStyle = colour;
      context.strokeRect(column * size - margin, row * size - margin, size + 2 * margin, size + 2 * margin);
    }
  }

  save() {
    const picture = this.pictures[this.chosen.item % this.pictures.length];
    const canvas = document.createElement("canvas");
    canvas.width = picture?.width ?? this.maps.width * this.maps.spatialScale;
    canvas.height = picture?.height ?? this.maps.height * this.maps.spatialScale;
    this.draw(canvas);
    const name = [this.chosen.word, this.maps.frames[this.chosen.frame]].filter(Boolean).join(" ");
    canvas.toBlob((blob) => {
      const href = URL.createObjectURL(blob);
      createElement("a", { href, download: `${name.replaceAll(/[^\p{L}\p{N}]+/gu, "_")}.png` }).click();
      URL.revokeObjectURL(href);
    });
  }
}

app.registerExtension({
  name: "explainable_latents.inspector",
  nodeCreated(node) {
    if (NODES.has(node.comfyClass)) new Inspector(node);
  },
});
