/** The boxes of Layout from Text, on its node: moved, resized, drawn and removed by mouse and keyboard, always in its text. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { added, moved, removed, renamed } from "./layout_text.js";
import { addPanel, afterCall, asOneStep, createElement, growToFit, store } from "./panel.js";
import { ifOfWorkflowInFront } from "./runs.js";
import { translated } from "./texts.js";

// The entry of the node's `ui` output and of its saved properties: { text, width, height, unit, boxes }.
const KEY = "el_layout";
// The server's route that reads a text before any run, the values that it needs, and how long after the last change of
// the text it is asked, in milliseconds.
const ROUTE = "/explainable_latents/layout";
const ASKED = ["text", "numbers", "order", "width", "height"];
const PAUSE = 250;
const [HEIGHT, WIDTH] = [430, 320];
const EDGE = 7; // pixels of the page within which an edge is taken
const LEAST = 0.01; // length of a box, as a share of the picture
const [STEP, LONG_STEP] = [0.01, 0.05]; // of the arrow keys
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const NEW = { left: 0.35, top: 0.35, right: 0.65, bottom: 0.65 };
const AXES = [["left", "right"], ["top", "bottom"]];
const HELP =
  "Drag a box or its edge, or draw a new one. Tab chooses a box, arrow keys move it, with Ctrl they resize it, with Shift further; Enter names it, Delete removes it.";

/** Whether it is what a run stores: a workflow file may hold anything. */
function isWhole(stored) {
  const isBox = (box) => typeof box?.words === "string" && AXES.flat().every((side) => box[side] >= 0 && box[side] <= 1);
  const isSized = [stored?.width, stored?.height].every((length) => length > 0);
  return isSized && Array.isArray(stored.boxes) && stored.boxes.every((each) => isBox(each?.box));
}

const clamped = (value, low, high) => Math.max(low, Math.min(high, value));
const percent = (share) => Number((100 * share).toFixed(1));

class LayoutEditor {
  constructor(node) {
    this.node = node;
    this.read = { text: null, boxes: [] }; // what the server said last of the text, and our own changes since
    this.question = 0; // number of the newest question to the server
    this.chosen = -1;
    this.buttons = [];
    this.build();
    addPanel(node, "layout", this.root, () => HEIGHT);
    for (const method of ["onConfigure", "onAfterGraphConfigured", "onConnectionsChange"]) {
      afterCall(node, method, () => this.changed());
    }
    afterCall(node, "onRemoved", () => clearTimeout(this.timer));
    afterCall(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    for (const name of ASKED) afterCall(this.widget(name), "callback", () => this.changed());
    this.changed();
    growToFit(node, this.root, HEIGHT, WIDTH);
  }

  build() {
    const pointer = {
      pointerdown: (event) => this.grab(event),
      pointermove: (event) => this.drag(event),
      lostpointercapture: () => this.drop(),
    };
    const label = translated("Boxes of the layout");
    this.stage = createElement("div", { class: "el-stage", role: "group", "aria-label": label, on: pointer });
    this.words = createElement("input", { type: "text", "aria-label": translated("Words of the chosen box") });
    this.words.addEventListener("change", () => this.name(this.words.value));
    this.words.addEventListener("keydown", (event) => event.key === "Enter" && this.buttons[this.chosen]?.focus());
    const button = (text, click) => createElement("button", { type: "button", text: translated(text), on: { click } });
    this.adding = button("Add a box", () => this.add(NEW));
    this.removing = button("Delete", () => this.remove(this.chosen));
    const called = createElement("label", {}, createElement("span", { text: translated("words") }), this.words);
    const controls = createElement("div", { class: "el-controls" }, called, this.adding, this.removing);
    this.problem = createElement("p", { class: "el-warning", "aria-live": "polite" });
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.room = createElement("div", { class: "el-room" }, this.stage);
    new ResizeObserver(() => this.fit()).observe(this.room);
    this.root = createElement("div", {}, this.room, controls, this.problem, this.note);
  }

  widget(name) {
    return this.node.widgets.find((widget) => widget.name === name);
  }

  isLinked(name) {
    return this.node.inputs?.some((input) => input.name === name && input.link != null);
  }

  get stored() {
    const stored = this.node.properties[KEY];
    return isWhole(stored) ? stored : undefined;
  }

  /** Whether the text, or what its numbers mean, is known only when the node is run. */
  get isGiven() {
    const pixels = this.widget("numbers").value === "pixels";
    return ASKED.some((name) => this.isLinked(name) && (pixels || !["width", "height"].includes(name)));
  }

  /** Whether the boxes that are shown are those of the text as it stands now. */
  get isCurrent() {
    return !this.isGiven && this.read.text === this.widget("text").value;
  }

  /** Whether boxes can be changed and added: not where a text cannot be read. */
  get isOpen() {
    return this.isCurrent && (this.read.boxes.length > 0 || !this.read.text.trim());
  }

  receive(shown) {
    if (!shown) return;
    ifOfWorkflowInFront(() => {
      store(this.node, KEY, shown);
      this.update();
    });
  }

  /** Ask the server for the boxes a moment after the last change. */
  changed() {
    clearTimeout(this.timer);
    this.question += 1; // an answer to an older one is no longer wanted
    this.isAsking = !this.isGiven;
    if (this.isAsking) this.timer = setTimeout(() => this.ask(), PAUSE);
    this.update();
  }

  async ask() {
    const question = this.question;
    const values = Object.fromEntries(ASKED.map((name) => [name, this.widget(name).value]));
    let answer;
    try {
      const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) };
      const response = await api.fetchApi(ROUTE, options);
      answer = response.ok ? await response.json() : undefined;
    } catch (error) {
      console.warn("explainable-latents: the server does not say which boxes the text has:", error);
    }
    if (question !== this.question) return;
    this.isAsking = false;
    if (answer && !this.grabbed) this.read = { ...answer, text: values.text };
    this.update();
  }

  /** The layout that is shown: of the text, or of the last run where another node gives the text. */
  get shown() {
    return this.isGiven ? (this.stored ?? { boxes: [] }) : this.read;
  }

  update() {
    const { boxes } = this.shown;
    const isOpen = this.isOpen;
    if (boxes.length !== this.buttons.length) {
      this.buttons = boxes.map((_, i) => this.button(i));
      this.stage.replaceChildren(...this.buttons);
    }
    if (this.chosen >= boxes.length) this.chosen = boxes.length - 1;
    const areas = boxes.map(({ box }) => (box.right - box.left) * (box.bottom - box.top));
    boxes.forEach((_, i) => {
      this.place(i);
      this.buttons[i].style.zIndex = areas.filter((area) => area > areas[i]).length + 1; // small ones stay in reach
      this.buttons[i].setAttribute("aria-disabled", String(!isOpen));
    });
    this.fit();
    this.stage.toggleAttribute("data-open", isOpen);
    const chosen = boxes[this.chosen];
    if (document.activeElement !== this.words) this.words.value = chosen?.box.words ?? "";
    this.words.disabled = this.removing.disabled = !isOpen || !chosen;
    this.adding.disabled = !isOpen;
    this.problem.textContent = this.isGiven ? "" : (this.read.problem ?? "");
    this.problem.hidden = !this.problem.textContent || !this.widget("text").value.trim();
    this.note.textContent = this.instructions(boxes);
    this.root.ariaBusy = String(this.isAsking);
  }

  /** Give the stage the proportions of the picture, as large as the room allows. */
  fit() {
    const size = ["width", "height"].map((name) => (this.isGiven ? this.stored?.[name] : undefined) ?? this.widget(name).value);
    const { clientWidth, clientHeight } = this.room;
    const scale = Math.min(clientWidth / size[0], clientHeight / size[1]);
    ["width", "height"].forEach((name, i) => (this.stage.style[name] = `${scale * size[i]}px`));
  }

  instructions(boxes) {
    if (this.isGiven && !boxes.length) return translated("The text comes from another node: run to see its boxes.");
    if (this.isGiven) return translated("Boxes of the last run. They come from another node, and are changed there.");
    return translated(HELP);
  }

  button(i) {
    return createElement("button", {
      type: "button",
      class: "el-box",
      on: { focus: () => this.choose(i), keydown: (event) => this.key(i, event) },
    });
  }

  /** Put a box where it is, and say it. */
  place(i) {
    const { box, colour } = this.shown.boxes[i];
    const [button, { left, top, right, bottom }] = [this.buttons[i], box];
    const lengths = { left, top, width: right - left, height: bottom - top };
    for (const [name, share] of Object.entries(lengths)) button.style[name] = `${100 * share}%`;
    button.style.setProperty("--el-colour", colour);
    button.textContent = box.words;
    const values = Object.fromEntries(Object.entries(lengths).map(([name, share]) => [name, percent(share)]));
    const text = translated("{words}: left {left} %, top {top} %, width {width} %, height {height} %", { words: box.words, ...values });
    button.setAttribute("aria-label", text);
    button.setAttribute("aria-pressed", String(i === this.chosen));
    button.title = text;
  }

  choose(i) {
    this.chosen = i;
    this.update();
  }

  /** Where the pointer is in the picture, in shares. The page may be scaled. */
  at(event) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return { x: (event.clientX - left) / width, y: (event.clientY - top) / height, width, height };
  }

  /** Which sides of a box lie under the pointer; none in its middle. */
  sidesAt({ x, y, width, height }, box) {
    return AXES.flatMap(([low, high], axis) => {
      const [at, reach] = [[x, y][axis], Math.min(EDGE / [width, height][axis], (box[high] - box[low]) / 4)];
      return at < box[low] + reach ? [low] : at > box[high] - reach ? [high] : [];
    });
  }

  grab(event) {
    if (event.button !== 0 || !this.isOpen) return;
    const at = this.at(event);
    const i = this.buttons.indexOf(event.target);
    event.preventDefault(); // of text selection; the focus is set here
    this.stage.setPointerCapture(event.pointerId);
    if (i >= 0) {
      const { box } = this.read.boxes[i];
      this.buttons[i].focus();
      this.grabbed = { i, from: at, box, sides: this.sidesAt(at, box) };
    } else {
      this.grabbed = { from: at };
    }
  }

  drag(event) {
    const at = this.at(event);
    if (!this.grabbed) return this.point(event, at);
    const { i, from, box, sides } = this.grabbed;
    if (i === undefined) {
      const [xs, ys] = [[from.x, at.x], [from.y, at.y]].map((ends) => ends.map((end) => clamped(end, 0, 1)).sort((a, b) => a - b));
      this.grabbed.drawn = { left: xs[0], right: xs[1], top: ys[0], bottom: ys[1] };
      return this.outline(this.grabbed.drawn);
    }
    const by = [at.x - from.x, at.y - from.y];
    this.grabbed.isMoved ||= by.some((each) => each !== 0);
    this.read.boxes[i] = { ...this.read.boxes[i], box: { ...box, ...(sides.length ? resized(box, sides, by) : shifted(box, by)) } };
    this.place(i);
  }

  /** Show what would be taken under the pointer. */
  point(event, at) {
    const i = this.buttons.indexOf(event.target);
    if (i < 0 || !this.isOpen) return;
    const sides = this.sidesAt(at, this.read.boxes[i].box);
    const [across, down] = AXES.map((ends) => sides.find((side) => ends.includes(side)));
    const slope = (across === "left") === (down === "top") ? "nwse-resize" : "nesw-resize";
    this.buttons[i].style.cursor = across && down ? slope : across ? "ew-resize" : down ? "ns-resize" : "move";
  }

  /** The frame of a box that is being drawn; of none. */
  outline(box) {
    this.frame?.remove();
    if (!box) return;
    this.frame = createElement("div", { class: "el-frame" });
    const lengths = { left: box.left, top: box.top, width: box.right - box.left, height: box.bottom - box.top };
    for (const [name, share] of Object.entries(lengths)) this.frame.style[name] = `${100 * share}%`;
    this.stage.append(this.frame);
  }

  drop() {
    const { i, box, isMoved, drawn } = this.grabbed ?? {};
    this.grabbed = undefined;
    this.outline();
    if (isMoved) {
      const { box: now } = this.read.boxes[i];
      this.read.boxes[i] = { ...this.read.boxes[i], box };
      this.write(moved(this.read, i, now));
    } else if (drawn && drawn.right - drawn.left > LEAST && drawn.bottom - drawn.top > LEAST) {
      this.add(drawn);
    }
  }

  key(i, event) {
    const arrow = ARROWS[event.key];
    const isRemoved = event.key === "Delete" || event.key === "Backspace";
    if (!this.isOpen || !(arrow || isRemoved || event.key === "Enter")) return;
    event.preventDefault();
    event.stopPropagation(); // the graph has keys with Ctrl of its own
    if (isRemoved) return this.remove(i);
    if (event.key === "Enter") return this.words.select();
    const { box } = this.read.boxes[i];
    const by = arrow.map((each) => each * (event.shiftKey ? LONG_STEP : STEP));
    const isResized = event.ctrlKey || event.metaKey || event.altKey;
    this.write(moved(this.read, i, isResized ? resized(box, ["right", "bottom"], by) : shifted(box, by)));
  }

  add(sides) {
    const corners = this.widget("order").value === "left, top, right, bottom";
    this.write(added(this.read, translated("thing"), sides, corners));
    this.buttons.at(-1).focus();
    this.words.select(); // a new box wants its words
  }

  remove(i) {
    this.write(removed(this.read, i));
    // Without the focus the next key would go to the graph, where Delete removes the node.
    (this.buttons[Math.min(i, this.buttons.length - 1)] ?? this.adding).focus();
  }

  name(words) {
    if (this.isOpen && this.chosen >= 0) this.write(renamed(this.read, this.chosen, words));
  }

  /** Show a changed layout and write it into the text, as one step that the user can undo. */
  write(layout) {
    if (layout.text === this.read.text) return this.update();
    this.read = { ...this.read, problem: undefined, ...layout };
    const widget = this.widget("text");
    asOneStep(() => {
      widget.value = layout.text;
      widget.callback?.(layout.text, app.canvas, this.node);
    });
  }
}

/** A box moved by shares of the picture, which it does not leave. */
function shifted(box, by) {
  return Object.fromEntries(
    AXES.flatMap(([low, high], axis) => {
      const shift = clamped(by[axis], -box[low], 1 - box[high]);
      return [[low, box[low] + shift], [high, box[high] + shift]];
    }),
  );
}

/** A box with some sides moved by shares of the picture, which they do not leave. */
function resized(box, sides, by) {
  const ends = AXES.flatMap(([low, high], axis) => [
    [low, sides.includes(low) ? clamped(box[low] + by[axis], 0, box[high] - LEAST) : box[low]],
    [high, sides.includes(high) ? clamped(box[high] + by[axis], box[low] + LEAST, 1) : box[high]],
  ]);
  return Object.fromEntries(ends);
}

app.registerExtension({
  name: "explainable_latents.layout_editor",
  nodeCreated(node) {
    if (node.comfyClass === "ELLayoutFromText") new LayoutEditor(node);
  },
});
