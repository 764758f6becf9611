/** The attention inspector under Saliency Overlay: which words own a place, each word's map, step by step. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Maps } from "./maps.js";
import { addPanel, after, fit, keep, make } from "./panel.js";

const KEY = "el_inspector"; // in the node's `ui`: { file, type }; in its properties also what is chosen
const [EMPTY_HEIGHT, HEIGHT, WIDTH] = [54, 340, 340];
const SIDE = 512; // pixels of the canvas, longer side
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const START = { word: "", frame: 0, item: 0, opacity: 0.6, x: 0.5, y: 0.5 };

/** The nearest whole number from 0 to count - 1; 0 for what is no number, as a workflow file may hold anything. */
const within = (value, count) => Math.max(0, Math.min(count - 1, Math.floor(value) || 0));

class Inspector {
  constructor(node) {
    this.node = node;
    this.chosen = { ...START };
    this.heat = document.createElement("canvas");
    this.build();
    addPanel(node, "inspector", this.root, () => (this.maps ? HEIGHT : EMPTY_HEIGHT));
    after(node, "onConfigure", () => this.load());
    after(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    this.empty("Run, then look into the maps here.");
  }

  build() {
    this.canvas = make("canvas", {
      tabindex: "0",
      role: "application",
      "aria-label": "Place in the picture; arrow keys move it, with Shift by four cells",
      on: {
        pointermove: (event) => this.rank(this.cellAt(event)),
        pointerleave: () => this.rank(this.cell),
        pointerdown: (event) => this.pin(this.cellAt(event)),
        keydown: (event) => this.move(event),
      },
    });
    this.list = make("div", { class: "el-words", role: "group", "aria-label": "Words, the strongest first" });
    this.list.dataset.captureWheel = "true"; // or Nodes 2.0 zooms instead of scrolling
    this.frame = this.slider("step", (value) => ({ frame: value }));
    this.item = this.slider("picture", (value) => ({ item: value }));
    this.opacity = this.slider("opacity", (value) => ({ opacity: value / 100 }));
    const save = make("button", { type: "button", text: "Save PNG", on: { click: () => this.save() } });
    this.note = make("p", { class: "el-note", role: "status" });
    this.view = make("div", { class: "el-view" }, this.canvas, this.list);
    this.controls = make("div", { class: "el-controls" }, this.frame.label, this.item.label, this.opacity.label, save);
    this.root = make("div", {}, this.view, this.controls, this.note);
  }

  /** While a slider moves the choice is only shown; when it is let go it is kept. */
  slider(name, change) {
    const text = make("span", { text: name });
    const input = make("input", { type: "range", min: "0", step: "1", "aria-label": name });
    input.addEventListener("input", () => this.show(change(Number(input.value))));
    input.addEventListener("change", () => keep(this.node, KEY, this.chosen));
    return { label: make("label", {}, text, input), text, input };
  }

  /** The file of a run that has just ended. */
  receive(made) {
    if (!made) return;
    keep(this.node, KEY, { ...this.chosen, file: made.file, type: made.type });
    this.load();
  }

  /** Show what the node keeps: after a run, and after the page or a workflow was loaded. */
  async load() {
    const kept = this.node.properties[KEY];
    if (!kept?.file) return;
    const isOld = () => this.node.properties[KEY]?.file !== kept.file; // another run was faster
    const query = new URLSearchParams({ filename: kept.file, type: kept.type });
    try {
      const answer = await api.fetchApi(`/view?${query}`);
      if (isOld()) return;
      if (!answer.ok) return this.empty("The maps of the last run are gone: run again.");
      const maps = new Maps(await answer.arrayBuffer());
      const pictures = await Promise.all(maps.pictures.map((picture) => createImageBitmap(picture)));
      if (isOld()) return;
      this.maps = maps;
      this.pictures = pictures;
    } catch (error) {
      if (isOld()) return;
      console.warn("explainable-latents: these are no maps:", kept.file, error);
      return this.empty("The maps cannot be read: run again.");
    }
    this.ready();
  }

  empty(reason) {
    this.maps = null;
    this.view.hidden = this.controls.hidden = true;
    this.note.textContent = reason;
    fit(this.node, this.root, EMPTY_HEIGHT);
  }

  /** Lay out the words and sliders for new maps. */
  ready() {
    const { words, frames, batch, width, height } = this.maps;
    this.buttons = words.map((word) => {
      const value = make("span");
      const name = make("span", { text: word });
      const button = make("button", { type: "button", on: { click: () => this.pick(word) } }, name, value);
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
    fit(this.node, this.root, HEIGHT, WIDTH);
    this.show({ ...START, ...this.node.properties[KEY] });
  }

  /** Show with these choices changed; those that these maps do not have are replaced by ones that they have. */
  show(change) {
    const { words, frames, batch } = this.maps;
    this.chosen = { ...this.chosen, ...change };
    if (!words.includes(this.chosen.word)) this.chosen.word = words[0];
    this.chosen.frame = within(this.chosen.frame, frames.length);
    this.chosen.item = within(this.chosen.item, batch);
    this.chosen.opacity = within(Math.round(100 * this.chosen.opacity), 101) / 100;
    const { word, frame, item, opacity } = this.chosen;
    words.forEach((each, i) => this.buttons[i].button.setAttribute("aria-pressed", each === word));
    this.label(this.frame, frame, frames[frame] || "all steps");
    this.label(this.item, item, `picture ${item + 1} of ${batch}`);
    this.label(this.opacity, Math.round(opacity * 100), `opacity ${Math.round(opacity * 100)} %`);
    const picture = this.maps.picture(words.indexOf(word), frame, item);
    this.heat.hidden = !picture; // a layer or step that lacks the word
    if (picture) this.heat.getContext("2d").putImageData(picture, 0, 0);
    this.rank(this.cell);
    this.say();
  }

  label(slider, value, text) {
    slider.input.value = value;
    slider.input.setAttribute("aria-valuetext", text);
    slider.text.textContent = text;
  }

  pick(word) {
    this.show({ word });
    keep(this.node, KEY, this.chosen);
  }

  /** The chosen place as [column, row]. */
  get cell() {
    const { width, height } = this.maps;
    return [within(this.chosen.x * width, width), within(this.chosen.y * height, height)];
  }

  /** The cell under the pointer; the canvas may be scaled by the page and letter-boxed by its own box. */
  cellAt(event) {
    const box = this.canvas.getBoundingClientRect();
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const x = (event.clientX - box.left) / scale / this.canvas.width;
    const y = (event.clientY - box.top) / scale / this.canvas.height;
    return this.inside([x * this.maps.width, y * this.maps.height]);
  }

  inside([column, row]) {
    const { width, height } = this.maps;
    return [within(column, width), within(row, height)];
  }

  /** Keep a place. */
  pin([column, row]) {
    const { width, height } = this.maps;
    this.show({ x: (column + 0.5) / width, y: (row + 0.5) / height });
    keep(this.node, KEY, this.chosen);
  }

  move(event) {
    const step = MOVES[event.key];
    if (!step) return;
    event.preventDefault();
    const far = event.shiftKey ? 4 : 1;
    this.pin(this.inside(this.cell.map((at, i) => at + far * step[i])));
  }

  /** Rank the words at a cell and mark it. */
  rank([column, row]) {
    const { frame, item } = this.chosen;
    const ranked = this.maps.ranked(frame, item, column, row);
    const focused = document.activeElement;
    const most = ranked[0]?.value || 1;
    const sorted = ranked.map(({ index, value }) => {
      const { button, value: shown } = this.buttons[index];
      shown.textContent = `${value.toFixed(1)} ×`;
      button.style.setProperty("--el-share", `${(100 * value) / most}%`);
      return button;
    });
    if (sorted.some((button, i) => this.list.children[i] !== button)) {
      this.list.replaceChildren(...sorted);
      if (sorted.includes(focused)) focused.focus();
    }
    this.draw(this.canvas, [column, row]);
  }

  /** For screen readers: what the list shows to the eye. */
  say() {
    const [column, row] = this.cell;
    const ranked = this.maps.ranked(this.chosen.frame, this.chosen.item, column, row).slice(0, 3);
    const words = ranked.map(({ word, value }) => `${word} ${value.toFixed(1)}`).join(", ");
    this.note.textContent = `column ${column + 1}, row ${row + 1}: ${words} (1 = the map's mean)`;
  }

  /** Draw the picture, the map over it and, if given, a mark at a cell. */
  draw(canvas, cell) {
    const context = canvas.getContext("2d");
    const { width, height } = canvas;
    const under = this.pictures[this.chosen.item % this.pictures.length];
    context.globalAlpha = 1;
    context.clearRect(0, 0, width, height);
    if (under) context.drawImage(under, 0, 0, width, height);
    context.globalAlpha = under ? this.chosen.opacity : 1;
    context.imageSmoothingQuality = "high";
    if (!this.heat.hidden) context.drawImage(this.heat, 0, 0, width, height);
    if (cell) this.mark(context, cell);
  }

  /** A black and white box around a cell, seen on every colour. */
  mark(context, [column, row]) {
    const size = context.canvas.width / this.maps.width;
    context.globalAlpha = 1;
    context.lineWidth = 2;
    for (const [colour, far] of [["#000", 3], ["#fff", 1]]) {
      context.strokeStyle = colour;
      context.strokeRect(column * size - far, row * size - far, size + 2 * far, size + 2 * far);
    }
  }

  save() {
    const under = this.pictures[this.chosen.item % this.pictures.length];
    const canvas = document.createElement("canvas");
    canvas.width = under?.width ?? this.maps.width * this.maps.spatialScale;
    canvas.height = under?.height ?? this.maps.height * this.maps.spatialScale;
    this.draw(canvas);
    const name = [this.chosen.word, this.maps.frames[this.chosen.frame]].filter(Boolean).join(" ");
    canvas.toBlob((blob) => {
      const href = URL.createObjectURL(blob);
      make("a", { href, download: `${name.replaceAll(/[^\p{L}\p{N}]+/gu, "_")}.png` }).click();
      URL.revokeObjectURL(href);
    });
  }
}

app.registerExtension({
  name: "explainable_latents.inspector",
  nodeCreated(node) {
    if (node.comfyClass === "ELSaliencyOverlay") new Inspector(node);
  },
});
