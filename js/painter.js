/** Paints on a grey mask, one cell for each place of the latent: brush and eraser, by pointer, pen and keys. */

import { createElement } from "./panel.js";

const INSIDE = 255;
const UNDO = 20; // steps that can be taken back
const COLOUR = [255, 64, 64]; // of what is inside
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

export class Painter {
  #before = []; // earlier levels, the newest last
  #last; // the cell where the pointer was
  #cursor; // the cell that the keys move, once they have

  /** width, height: in cells. levels: a Uint8Array, 255 inside. onChange: called after every stroke. */
  constructor(width, height, levels, label, onChange) {
    Object.assign(this, { width, height, levels, onChange, erases: false, radius: Math.max(1, width / 16) });
    const on = {
      pointerdown: (event) => this.#begin(event),
      pointermove: (event) => this.#move(event),
      pointerup: () => this.#end(),
      pointercancel: () => this.#end(),
      keydown: (event) => this.#key(event),
    };
    const shown = { class: "el-painter", tabindex: "0", role: "application", "aria-label": label };
    this.canvas = createElement("canvas", { ...shown, width, height, on });
    this.draw();
  }

  draw() {
    const picture = new ImageData(this.width, this.height);
    this.levels.forEach((level, i) => picture.data.set([...COLOUR, level], 4 * i));
    if (this.#cursor) {
      const [x, y] = this.#cursor;
      picture.data.set([255, 255, 255, 255], 4 * (y * this.width + x));
    }
    this.canvas.getContext("2d").putImageData(picture, 0, 0);
  }

  fill(level) {
    this.replace(new Uint8Array(this.levels.length).fill(level));
  }

  /** Puts other levels in place of the present ones, as one step that can be undone. */
  replace(levels) {
    this.#remember();
    this.levels = Uint8Array.from(levels);
    this.draw();
    this.onChange();
  }

  undo() {
    if (!this.#before.length) return;
    this.levels = this.#before.pop();
    this.draw();
    this.onChange();
  }

  #remember() {
    this.#before = [...this.#before, this.levels.slice()].slice(-UNDO);
  }

  #cell(event) {
    const box = this.canvas.getBoundingClientRect();
    const share = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return [share[0] * this.width - 0.5, share[1] * this.height - 0.5];
  }

  #begin(event) {
    if (event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.#remember();
    this.#cursor = undefined;
    this.#last = this.#cell(event);
    this.#dab(this.#last, event);
  }

  #move(event) {
    if (!this.#last) return;
    const [from, to] = [this.#last, this.#cell(event)];
    const steps = Math.max(1, Math.ceil(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    for (let i = 1; i <= steps; i++) {
      this.#dab([0, 1].map((axis) => from[axis] + ((to[axis] - from[axis]) * i) / steps), event);
    }
    this.#last = to;
  }

  #end() {
    if (!this.#last) return;
    this.#last = undefined;
    this.onChange();
  }

  /** One touch of the brush around a place; a pen paints the wider the harder it is pressed. */
  #dab([x, y], { pointerType, pressure } = {}) {
    const radius = this.radius * (pointerType === "pen" ? 2 * pressure : 1);
    const reach = Math.max(radius - 0.5, 0.5);
    const [column, row] = [Math.round(x), Math.round(y)]; // is touched however small the brush is
    for (let i = 0; i < this.levels.length; i++) {
      const [across, down] = [i % this.width, Math.floor(i / this.width)];
      const isTouched = (across === column && down === row) || Math.hypot(across - x, down - y) <= reach;
      if (isTouched) this.levels[i] = this.erases ? 0 : INSIDE;
    }
    this.draw();
  }

  /** Arrow keys move a cursor, the space bar paints there. */
  #key(event) {
    const [dx, dy] = MOVES[event.key] ?? [];
    if (dx === undefined && event.key !== " ") return;
    event.preventDefault();
    this.#cursor ??= [Math.floor(this.width / 2), Math.floor(this.height / 2)];
    if (dx !== undefined) {
      const [x, y] = this.#cursor;
      this.#cursor = [Math.min(this.width - 1, Math.max(0, x + dx)), Math.min(this.height - 1, Math.max(0, y + dy))];
      this.draw();
      return;
    }
    this.#remember();
    this.#dab(this.#cursor);
    this.onChange();
  }
}
