/**
 * A running sampler that waits for an answer: a badge "Paused at step 12/28" on the page, wherever the user is, and a
 * panel to look at the predicted picture, to paint on the mask, to change values, and to go on. What is said to the
 * server and heard from it is in nodes/host/pauses/messages.py.
 */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { Maps } from "./maps.js";
import { Painter } from "./painter.js";
import { busyUntil, createElement } from "./panel.js";
import { Strip } from "./strip.js";
import { translated } from "./texts.js";

const PAUSE = "explainable_latents.pause";
const CLOSED = "explainable_latents.pause_closed";
const ROUTE = "/explainable_latents/pauses";
const DRAFT = "explainable_latents.draft"; // in sessionStorage: what was painted and not sent yet
const MARK = "⏸ "; // before the title of the page
const NOTICE = 8000; // milliseconds that a notice stays
const AT_ONCE = new Set(["seen", "more time", "cancel"]); // answers that hold nothing of what is in the panel
const REASONS = {
  timeout: "The time was over.",
  left: "Nobody came back in time.",
  unseen: "The pause was not shown in time; the run went on.",
  cancel: "The run was cancelled.",
  error: "The run has failed.",
};

const style = createElement("link", { rel: "stylesheet", href: new URL("./pause.css", import.meta.url).href });
document.head.append(style);

const root = createElement("section", { class: "el-pause" });
const notice = createElement("p", { role: "status" });
const shown = new Map(); // id of a pause -> its Panel
let announced; // the websocket on which the server knows that this page shows pauses

/** The grey levels of a picture, one byte for each pixel. */
async function levelsOf(url, width, height) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = createElement("canvas", { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  return context.getImageData(0, 0, width, height).data.filter((_, i) => i % 4 === 0);
}

/** A grey PNG of 8 bits: a browser's canvas would make one of colours. */
async function greyPng(levels, width, height) {
  const rows = new Uint8Array((width + 1) * height);
  for (let y = 0; y < height; y++) rows.set(levels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
  const packed = new Response(new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate")));
  const header = new DataView(new ArrayBuffer(13));
  header.setUint32(0, width);
  header.setUint32(4, height);
  header.setUint8(8, 8);
  const chunks = [
    pngChunk("IHDR", new Uint8Array(header.buffer)),
    pngChunk("IDAT", new Uint8Array(await packed.arrayBuffer())),
    pngChunk("IEND", new Uint8Array()),
  ];
  return new Blob([Uint8Array.of(137, 80, 78, 71, 13, 10, 26, 10), ...chunks], { type: "image/png" });
}

function pngChunk(name, data) {
  const chunk = new DataView(new ArrayBuffer(data.length + 12));
  const bytes = new Uint8Array(chunk.buffer);
  chunk.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  let sum = -1;
  for (const byte of bytes.subarray(4, data.length + 8)) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  chunk.setUint32(data.length + 8, ~sum >>> 0);
  return bytes;
}

const button = (text, click) => createElement("button", { text: translated(text), on: { click } });

const labelled = (text, field) => createElement("label", { text: translated(text) }, field);

function range(attributes, input) {
  const on = { input: () => input(Number(field.value)) };
  const field = createElement("input", { type: "range", ...attributes, on });
  return field;
}

const asText = (levels) => btoa(String.fromCharCode(...levels));
const fromText = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

class Panel {
  /** `before`: the panel that shows this pause until now, if any; what is set to look at things is kept. */
  constructor(message, before) {
    this.message = message;
    this.opacity = before?.opacity ?? 0; // of the heat maps
    this.received = performance.now();
    const { kind, step, steps } = message;
    const title = kind === "end" ? "At the end of the run" : "Paused at step {n}/{all}";
    const text = translated(title, { n: step, all: steps });
    this.badge = createElement("button", {
      class: "el-pause-badge",
      "aria-expanded": "true",
      text,
      on: { click: () => this.toggle() },
    });
    this.note = createElement("p", { role: "status" });
    this.problem = createElement("p", { role: "alert" });
    this.body = createElement("div");
    const on = { keydown: (event) => this.key(event) };
    this.panel = createElement("div", { class: "el-pause-panel", role: "dialog", "aria-label": text, on });
    this.panel.append(this.body, this.note, this.problem, this.#actions());
    if (before?.panel.hidden) this.toggle();
    root.append(this.panel, this.badge);
    this.timer = setInterval(() => this.#tell(), 500);
    this.#tell();
  }

  /** Fills the panel; called once. Rejects if a picture of the message cannot be read. */
  async fill() {
    const { kind, pictures, start, found, size, values } = this.message;
    this.item = 0;
    const what = translated(kind === "end" ? "what was sampled" : "what the model predicts now");
    this.picture = createElement("img", { alt: what });
    this.heat = createElement("canvas", { style: `opacity: ${this.opacity}`, "aria-hidden": "true" });
    this.stage = createElement("div", { class: "el-pause-pictures" }, this.picture, this.heat);
    this.body.append(this.stage);
    if (kind === "mask") {
      const [width, height] = size;
      const { levels: kept } = this.#draft();
      this.found = await Promise.all(found.map((url) => levelsOf(url, width, height)));
      const begun = await Promise.all(start.map((url) => levelsOf(url, width, height)));
      const levels = kept ? kept.map(fromText) : begun;
      const label = translated("Mask: paint with the pointer, or with arrow keys and the space bar");
      const keep = () => this.#keep();
      this.painters = levels.map((each) => new Painter(width, height, Uint8Array.from(each), label, keep));
      this.body.append(...this.#tools());
    }
    this.body.append(...values.map((value) => this.#value(value)));
    if (this.message.actions.includes("show")) this.body.append(this.#show());
    if (pictures.length > 1) this.body.prepend(this.#batch());
    this.body.append(...this.#ways());
    this.choose(0);
    if (!size && pictures.length) await this.picture.decode();
    const [across, down] = size ?? [this.picture.naturalWidth || 1, this.picture.naturalHeight || 1];
    this.stage.style.aspectRatio = `${across} / ${down}`;
    await this.#heat();
  }

  /** Shows one picture of the batch. */
  choose(item) {
    this.item = item;
    const { pictures } = this.message;
    this.picture.hidden = !pictures.length;
    if (pictures.length) this.picture.src = pictures[Math.min(item, pictures.length - 1)];
    this.painter?.canvas.remove();
    this.painter = this.painters?.[item];
    if (this.painter) this.stage.append(this.painter.canvas);
    this.batch?.press(item);
    this.#setTool();
    this.drawHeat?.();
  }

  toggle() {
    this.panel.hidden = !this.panel.hidden;
    this.badge.setAttribute("aria-expanded", String(!this.panel.hidden));
  }

  key(event) {
    event.stopPropagation(); // the graph has keys of its own
    const isField = event.target.matches("button, input, select, textarea");
    if (event.key === "Enter" && !isField) this.answer("continue");
    if (event.target.matches("input[type=number], input[type=text], select, textarea")) return;
    if (event.key === "z" && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      this.painter?.undo();
    } else if (this.painter && !event.ctrlKey && !event.metaKey) {
      if (event.key === "b" || event.key === "e") this.#setTool(event.key === "e");
      if (event.key === "[" || event.key === "]") {
        this.size.value = Number(this.size.value) + (event.key === "]" ? 1 : -1);
        this.#setTool();
      }
    }
  }

  /** more: further fields of the answer. */
  async answer(action, more = {}) {
    // Until the panel is filled it lacks what was painted and written before the page was loaded again.
    if (!AT_ONCE.has(action)) await this.begun.catch(() => {});
    const { id, token, revision, size } = this.message;
    const form = new FormData();
    const fields = { client: api.clientId, token, revision, action, ...more };
    if (this.again && (action === "continue" || action === "end here")) fields.stop_at_end = this.again.checked;
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    if (action === "continue") {
      const pngs = (this.painters ?? []).map(({ levels }) => greyPng(levels, ...size));
      for (const png of await Promise.all(pngs)) form.append("mask", png, "mask.png");
    }
    if (this.values && (action === "continue" || action === "show")) form.append("values", JSON.stringify(this.#chosen()));
    const answer = await api.fetchApi(`${ROUTE}/${id}`, { method: "POST", body: form });
    const said = await answer.json();
    if (answer.ok) {
      this.message.left = said.left;
      this.received = performance.now();
      this.problem.textContent = "";
    } else if (answer.status === 404 || answer.status === 409) {
      this.close(translated("Answered or taken over elsewhere."));
    } else {
      this.problem.textContent = said.error;
    }
  }

  /** All that can have the focus. */
  get controls() {
    return [...this.panel.querySelectorAll("button, input, select, textarea")];
  }

  close(text = "") {
    clearInterval(this.timer);
    this.panel.remove();
    this.badge.remove();
    shown.delete(this.message.id);
    tell(text);
  }

  /** Says what happens if nothing is done. */
  #tell() {
    const { left, then, kind } = this.message;
    const goesOn = kind === "end" ? "the run ends with what is finished" : "the run goes on as it is";
    const ends = translated(then === "cancel" ? "the run is cancelled" : goesOn);
    if (left === null) {
      this.note.textContent = translated("Waits until you answer; other runs wait, too.");
      return;
    }
    const seconds = Math.max(0, Math.round(left - (performance.now() - this.received) / 1000));
    const time = `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}`;
    const lost = kind === "mask" ? "What was painted and not sent is lost then." : "What was changed and not sent is lost then.";
    const unsent = kind === "mask" || this.#draft().values ? ` ${translated(lost)}` : "";
    this.note.textContent = translated("If you do nothing, {ends} in {time}.", { ends, time }) + unsent;
  }

  #actions() {
    const names = {
      continue: this.message.kind === "end" ? "Finish" : "Continue",
      "end here": "End here",
      "more time": "More time",
      cancel: "Cancel the run",
    };
    const offered = this.message.actions.filter((action) => names[action]);
    const buttons = offered.map((action) =>
      createElement("button", {
        class: action === "continue" ? "el-pause-go" : undefined,
        text: translated(names[action]),
        on: { click: () => this.answer(action) },
      }),
    );
    return createElement("div", { class: "el-pause-row" }, ...buttons);
  }

  #tools() {
    const [width] = this.message.size;
    const most = Math.max(4, Math.round(width / 3));
    this.brush = button("brush (B)", () => this.#setTool(false));
    this.eraser = button("eraser (E)", () => this.#setTool(true));
    this.size = range({ min: 1, max: most, value: Math.max(1, Math.round(width / 16)) }, () => this.#setTool());
    const seen = range({ min: 0, max: 1, step: 0.05, value: 0.5 }, (value) => this.#showMask(value));
    this.#showMask(0.5);
    const several = this.painters.length > 1;
    const rows = [
      [this.brush, this.eraser, labelled("size [ ]", this.size)],
      [
        button("fill", () => this.painter.fill(255)),
        button("clear", () => this.painter.fill(0)),
        button("undo", () => this.painter.undo()),
        button("restore the found mask", () => this.painter.replace(this.found[this.item])),
        ...(several ? [button("same for all", () => this.#sameForAll())] : []),
      ],
      [labelled("mask", seen)],
    ];
    return rows.map((row) => createElement("div", { class: "el-pause-row" }, ...row));
  }

  #showMask(opacity) {
    for (const { canvas } of this.painters) canvas.style.opacity = opacity;
  }

  #sameForAll() {
    for (const painter of this.painters) {
      if (painter !== this.painter) painter.replace(this.painter.levels);
    }
  }

  #setTool(erases = this.painter?.erases ?? false) {
    if (!this.painter) return;
    for (const painter of this.painters) Object.assign(painter, { erases, radius: Number(this.size.value) });
    this.brush.setAttribute("aria-pressed", String(!erases));
    this.eraser.setAttribute("aria-pressed", String(erases));
  }

  #value({ name, value, low, high, step, letters }) {
    const names = {
      cfg: "guidance scale (cfg)",
      blend: "blend with the other prompt",
      prompt: "prompt from here on",
      weights: "weights of words",
    };
    const hint = { prompt: "empty: as it was", weights: "dog: 1.5, beach: 0.5" }[name];
    const text = { type: "text", maxlength: letters, placeholder: hint && translated(hint) };
    const number = { type: "number", min: low, max: high, step, value };
    const input = createElement(name === "prompt" ? "textarea" : "input", {
      ...(name === "prompt" ? { ...text, type: undefined, rows: 3 } : letters ? text : number),
      on: { input: () => this.#keepDraft({ values: this.#chosen() }) },
    });
    input.value = this.#draft().values?.[name] ?? value;
    this.values = [...(this.values ?? []), [name, input]];
    return createElement("div", { class: "el-pause-row" }, labelled(names[name], input));
  }

  /** The values as they are in the panel. */
  #chosen() {
    const read = (input) => (input.type === "number" ? input.valueAsNumber : input.value);
    return Object.fromEntries(this.values.map(([name, input]) => [name, read(input)]));
  }

  /** Asks for one model call with the values in the panel; the pause is sent again with what it gives. */
  #show() {
    const wanted = this.message.maps ? "Show picture and heat maps for this" : "Show the picture for this";
    const show = button(wanted, async () => {
      if (show.ariaBusy === "true") return; // it stays so until the pause is sent again
      show.ariaBusy = "true";
      await this.answer("show");
      show.ariaBusy = String(!this.problem.textContent);
    });
    return createElement("div", { class: "el-pause-row" }, show);
  }

  /** The pictures of a batch, to choose one of. */
  #batch() {
    const { pictures } = this.message;
    this.batch = new Strip(translated("picture"));
    pictures.forEach((src, i) => {
      const text = translated("picture {n} of {all}", { n: i + 1, all: pictures.length });
      this.batch.add({ pictures: [[src, text]], text, click: () => this.choose(i) });
    });
    return this.batch.list;
  }

  /** What leads to other variants: the earlier stops, those that are finished, and whether to be asked at the end. */
  #ways() {
    const { kind, stops, variants, full, stop_at_end: again } = this.message;
    const ways = [];
    if (kind !== "end" && again !== null) {
      this.again = createElement("input", { type: "checkbox" });
      this.again.checked = again;
      const text = "stop once more at the end, for other variants";
      ways.push(createElement("div", { class: "el-pause-row" }, labelled(text, this.again)));
    }
    if (stops.length) {
      const strip = new Strip(translated("Earlier stops of this run"));
      const text = `Go back to before step {n}; ${kind === "end" ? "this variant is kept" : "what came after it is dropped"}.`;
      stops.forEach(({ step, picture }, to) => {
        const pictures = picture ? [[picture, ""]] : [];
        const click = () => this.answer("go back", { to });
        strip.add({ pictures, text: translated(text, { n: step }), caption: `↶ ${step}`, click });
      });
      ways.push(createElement("p", { text: translated("Earlier stops of this run") }), strip.list);
    }
    if (variants.length) {
      const strip = new Strip(translated("Finished variants"));
      variants.forEach((picture, i) => {
        const text = translated("variant {n}", { n: i + 1 });
        strip.add({ pictures: picture ? [[picture, text]] : [], text, caption: String(i + 1) });
      });
      ways.push(createElement("p", { text: translated("Finished variants") }), strip.list);
    }
    if (full) ways.push(createElement("p", { text: translated("This run has as many variants as one can have.") }));
    return ways;
  }

  /** Lays a word's heat map over the picture; a row of its own says of which word, and how strongly. */
  async #heat() {
    const { maps } = this.message;
    if (!maps) return;
    const answer = await api.fetchApi(`/view?filename=${encodeURIComponent(maps.file)}&type=${maps.type}`);
    if (!answer.ok) return;
    const read = new Maps(await answer.arrayBuffer());
    const frame = read.frames.length - 1; // the newest step
    const options = read.words.map((text, value) => createElement("option", { value, text }));
    const words = createElement("select", { on: { change: () => this.drawHeat() } });
    words.append(...options.filter((_, word) => read.index[frame][word] !== null));
    const look = { min: 0, max: 1, step: 0.05, value: this.opacity };
    const seen = range(look, (value) => (this.heat.style.opacity = this.opacity = value));
    const row = createElement("div", { class: "el-pause-row" }, labelled("heat map", seen), labelled("of the word", words));
    this.stage.after(row);
    this.drawHeat = () => {
      const picture = read.picture(Number(words.value), frame, Math.min(this.item, read.batch - 1));
      Object.assign(this.heat, { width: read.width, height: read.height });
      this.heat.getContext("2d").putImageData(picture, 0, 0);
    };
    this.drawHeat();
  }

  #keep() {
    this.#keepDraft({ levels: this.painters.map(({ levels }) => asText(levels)) });
  }

  /** Keeps what is painted or written for the case that the page is loaded again. */
  #keepDraft(draft) {
    sessionStorage.setItem(DRAFT, JSON.stringify({ id: this.message.id, ...draft }));
  }

  #draft() {
    const draft = JSON.parse(sessionStorage.getItem(DRAFT) ?? "{}");
    return draft.id === this.message.id ? draft : {};
  }
}

let forget;

/** Shows a notice for some seconds, and marks the page's title as long as a run waits. */
function tell(text = "") {
  markTitle();
  notice.textContent = text;
  clearTimeout(forget);
  if (text) forget = setTimeout(() => (notice.textContent = ""), NOTICE);
}

function markTitle() {
  const plain = document.title.replaceAll(MARK, "").replace(MARK.trim(), "");
  const marked = shown.size ? MARK + plain : plain;
  if (document.title !== marked) document.title = marked;
}

/** Says to the server that this page shows pauses; it holds for this websocket, if the server knows of it by now. */
async function announce() {
  const { socket, clientId } = api;
  if (!clientId || socket === announced) return;
  const body = JSON.stringify({ client_id: clientId });
  const headers = { "Content-Type": "application/json" };
  const answer = await api.fetchApi(`${ROUTE}/here`, { method: "POST", body, headers });
  if (answer.ok && (await answer.json()).connected) announced = socket;
}

/** Fills a panel and says that its pause is seen. place: which of its controls gets the focus, none if -1. */
async function begin(panel, place) {
  await busyUntil(panel.panel, panel.fill());
  panel.controls[place]?.focus();
  await panel.answer("seen");
}

api.addEventListener(PAUSE, ({ detail: message }) => {
  const before = shown.get(message.id);
  const place = before ? before.controls.indexOf(document.activeElement) : -1;
  before?.close();
  const panel = new Panel(message, before);
  shown.set(message.id, panel);
  tell();
  panel.begun = begin(panel, place);
});

api.addEventListener(CLOSED, ({ detail: { id, reason } }) => {
  shown.get(id)?.close(translated(REASONS[reason] ?? ""));
});

api.addEventListener("status", announce); // the first message of every websocket

app.registerExtension({
  name: "explainable_latents.pauses",
  setup() {
    root.setAttribute("aria-label", translated("Paused runs"));
    root.append(notice);
    document.body.append(root);
    // The host writes the title anew, with what it knows of the run, when it finds the time.
    new MutationObserver(markTitle).observe(document.querySelector("title"), { childList: true });
    return announce();
  },
});
