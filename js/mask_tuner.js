/** Sliders under the inspector: threshold, smoothing, growth and refining of a mask, and its outline at once. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { maskNodesOf, requestOfMap, UNSET } from "./mask_nodes.js";
import { afterCall, asOneStep, createElement } from "./panel.js";
import { refiningNodesOf } from "./refining_nodes.js";
import { translated } from "./texts.js";

// The server's route that makes the mask: nothing of it is computed here.
const ROUTE = "/explainable_latents/outline";
const GONE = 410;
const TOO_LARGE = 413;
export const TUNER_HEIGHT = 250;
const RULES = ["mean", "log-mean", "mean + k·std", "quantile", "otsu", "of maximum", "min-max", "mean × factor"];
// What `value` may usefully be with a rule, in steps of 0.01; the others do not use it.
const RANGES = {
  "log-mean": [-2, 2],
  "mean + k·std": [-2, 4],
  quantile: [0, 1],
  "of maximum": [0, 1],
  "min-max": [0, 1],
  "mean × factor": [0, 5],
};
// Setting -> its slider's name, range and step
const SLIDERS = {
  value: ["threshold", 0, 1, 0.01],
  smooth_sigma: ["smooth", 0, 16, 0.1],
  smooth_size: ["window", 1, 63, 2],
  dilate_iterations: ["grow", 0, 16, 1],
};
const MOST_POWERS = 8; // of refining, see nodes/core/attention/refine.py
const TUNABLE = { ...UNSET, refine: 0 };
const THIS_WORD = "word"; // in the place of a mask node

const tuners = new Set(); // those whose node is in a graph

/** A setting as a number: a workflow file may hold anything in a widget. */
const numberOf = (value) => Number(value) || 0;

export class MaskTuner {
  /** inspector: the `Inspector` that shows the maps. */
  constructor(inspector) {
    this.inspector = inspector;
    this.node = inspector.node;
    this.tuned = {};
    this.choice = "";
    this.targets = [];
    this.refiners = [];
    this.build();
    afterCall(this.node, "onAdded", () => tuners.add(this));
    afterCall(this.node, "onRemoved", () => tuners.delete(this));
  }

  build() {
    const toggle = { type: "button", text: translated("Tune the mask"), on: { click: () => this.toggle() } };
    this.button = createElement("button", toggle);
    this.mask = this.select("mask", (key) => this.keep({ mask: key }));
    this.rule = this.select("rule", (rule) => this.keep({ tuned: this.withRule(rule) }));
    this.rule.select.append(...RULES.map((rule) => createElement("option", { value: rule, text: rule })));
    this.sliders = Object.entries(SLIDERS).map(([name, [label, min, max, step]]) => this.slider(name, label, min, max, step));
    this.refine = this.slider("refine", "refine", 0, MOST_POWERS, 1);
    this.reason = createElement("span", { class: "el-note" });
    this.apply = createElement("button", { type: "button", text: translated("Apply"), on: { click: () => this.write() } });
    this.reset = createElement("button", { type: "button", text: translated("Reset"), on: { click: () => this.keep({ tuned: {} }) } });
    this.note = createElement("p", { class: "el-note", role: "status", "aria-live": "polite" });
    const sliders = [...this.sliders, this.refine].map(({ label }) => label);
    const choices = createElement("div", { class: "el-controls" }, this.mask.label, this.rule.label, ...sliders, this.reason);
    this.root = createElement(
      "div",
      { class: "el-tuner", role: "group", "aria-label": translated("Tune the mask") },
      choices,
      createElement("div", { class: "el-controls" }, this.apply, this.reset),
      this.note,
    );
    this.root.hidden = true;
  }

  select(name, choose) {
    const select = createElement("select", { "aria-label": translated(name) });
    select.addEventListener("change", () => choose(select.value));
    return { select, label: createElement("label", {}, createElement("span", { text: translated(name) }), select) };
  }

  slider(name, label, min, max, step) {
    const text = createElement("span", { text: translated(label) });
    const input = createElement("input", { type: "range", min, max, step, "aria-label": translated(label) });
    input.addEventListener("input", () => {
      this.tuned = { ...this.tuned, [name]: Number(input.value) };
      this.update();
    });
    input.addEventListener("change", () => this.keep({ tuned: this.tuned }));
    return { name, called: label, text, input, label: createElement("label", {}, text, input) };
  }

  /** What is stored with the node: { isOpen, tuned, mask }. A workflow file may hold anything. */
  get stored() {
    const { isOpen, tuned, mask } = this.inspector.stored?.tuner ?? {};
    const kept = Object.entries(tuned ?? {}).filter(([name, value]) => name in TUNABLE && typeof value === typeof TUNABLE[name]);
    return { isOpen: isOpen === true, tuned: Object.fromEntries(kept), mask: typeof mask === "string" ? mask : "" };
  }

  keep(change) {
    this.inspector.keep({ tuner: { ...this.stored, ...change } });
    this.restore();
  }

  /** Show what is stored: after a change of it, and when maps were loaded. */
  restore() {
    const { isOpen, tuned, mask } = this.stored;
    const wasOpen = this.isOpen;
    Object.assign(this, { isOpen, tuned, choice: mask });
    this.root.hidden = !isOpen;
    this.button.setAttribute("aria-expanded", String(isOpen));
    if (isOpen !== wasOpen) this.inspector.resize();
    this.said = "";
    this.update();
  }

  toggle() {
    this.keep({ isOpen: !this.stored.isOpen });
  }

  /** Forget the outline: it belongs to other maps. */
  clear() {
    this.outline = null;
    this.asked = undefined;
  }

  /** The tuned settings with another rule, and a value that it takes. */
  withRule(rule) {
    const [low, high] = RANGES[rule] ?? [-10, 10];
    const value = numberOf(this.settings.value);
    const nearest = Math.max(low, Math.min(high, value));
    return { ...this.tuned, rule, ...(nearest === value ? {} : { value: nearest }) };
  }

  /** The mask node whose mask is shown; undefined for the chosen word alone. */
  get target() {
    if (this.choice === THIS_WORD) return undefined;
    return this.usable.find(({ key }) => key === this.choice) ?? this.usable[0];
  }

  get usable() {
    return this.targets.filter(({ problem }) => !problem);
  }

  get settings() {
    const set = (this.target ?? this.usable[0])?.settings ?? UNSET;
    return { ...set, ...this.shaping };
  }

  /** What is tuned of the mask, whose maps may be refined otherwise. */
  get shaping() {
    const { refine, ...shaping } = this.tuned;
    return shaping;
  }

  /** How often the maps that are shown are refined: as tuned, or as a node says, of what there is; closed as they came. */
  get power() {
    const { powers } = this.inspector.maps;
    const [least, most] = [powers[0], powers.at(-1)];
    if (!this.isOpen) return most;
    const said = this.refiners.map(({ power }) => power).find((power) => power !== undefined);
    return Math.max(least, Math.min(most, Math.round(numberOf(this.tuned.refine ?? said ?? most))));
  }

  /** Follow the graph, the sliders and the inspector: show what is set, and ask for the outline of that. */
  update() {
    const { maps } = this.inspector;
    if (!this.isOpen || !maps) {
      const isOther = this.outline || (maps && maps.power !== this.power);
      this.clear();
      if (maps && isOther) this.inspector.showHeat();
      return;
    }
    this.targets = maskNodesOf(this.node);
    this.refiners = refiningNodesOf(this.node);
    const { power, shaping } = this;
    const { target, settings } = this;
    const options = [...this.usable.map(({ key, title }) => [key, title]), [THIS_WORD, translated("the chosen word alone")]];
    const listed = JSON.stringify(options);
    if (listed !== this.listed) {
      this.mask.select.replaceChildren(...options.map(([value, text]) => createElement("option", { value, text })));
      this.listed = listed; // anew only when it changes: the list may be open
    }
    this.mask.select.value = target?.key ?? THIS_WORD;
    this.rule.select.value = settings.rule;
    this.sliders.forEach((slider) => this.show(slider, settings));
    this.showRefine(maps.powers, power);
    const canWrite = (this.usable.length && Object.keys(shaping).length) || (this.refiners.length && "refine" in this.tuned);
    this.apply.disabled = !canWrite;
    this.reset.disabled = !Object.keys(this.tuned).length;
    const { shownMap: map, shownFrame: frame, stored, chosen } = this.inspector;
    const what = target ? target.request(shaping, { map, frame, word: chosen.word }) : requestOfMap(settings, map);
    const isThere = map !== null || (target && !target.needsMap(shaping));
    const asked = isThere ? JSON.stringify({ maps: stored.file, item: chosen.item, refine: power, ...what }) : undefined;
    const [before, now] = [this.asked, asked].map((each) => each && JSON.parse(each));
    if (["maps", "item", "refine"].some((name) => before?.[name] !== now?.[name])) this.outline = null; // of other maps
    if (maps.power !== power) this.inspector.showHeat();
    if (asked === this.asked) return this.say();
    this.asked = asked;
    if (asked === undefined) this.receive(null);
    else if (!this.isAsking) this.ask();
  }

  show(slider, settings) {
    const { name, input } = slider;
    const value = numberOf(settings[name]);
    const isThreshold = name === "value";
    const range = isThreshold ? RANGES[settings.rule] : SLIDERS[name].slice(1, 3);
    input.disabled = !range;
    slider.label.title = range ? "" : translated("This rule does not use it.");
    [input.min, input.max] = [Math.min(range?.[0] ?? 0, value), Math.max(range?.[1] ?? 1, value)];
    this.label(slider, value);
  }

  /** The slider goes over what the server has; the text beside it says why no further. */
  showRefine(powers, power) {
    const isFree = powers.length > 1;
    const most = powers.at(-1);
    const { input, label } = this.refine;
    input.disabled = !isFree;
    [input.min, input.max] = isFree ? [powers[0], most] : [0, MOST_POWERS];
    this.label(this.refine, power);
    let why = "Refining multiplies by self-attention, which is there only while the model runs: set refine on the node that captures, and run.";
    if (isFree) why = "These maps were refined up to {n} times: for more, set refine on the node that captures, and run once.";
    else if (most) why = "Refined less, these maps would be too many to be kept: show fewer steps, words or pictures.";
    label.title = this.reason.textContent = translated(why, { n: most });
  }

  label({ called, input, text }, value) {
    input.value = value;
    const shown = `${translated(called)} ${Number(value.toFixed(2))}`;
    text.textContent = shown;
    input.setAttribute("aria-valuetext", shown);
  }

  /** Ask the server for the outline, one question at a time: while the slider moves, the newest counts. */
  async ask() {
    const asked = this.asked;
    this.isAsking = true;
    this.root.ariaBusy = "true";
    let [status, answer] = [0, {}];
    try {
      const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: asked };
      const response = await api.fetchApi(ROUTE, options);
      status = response.status;
      answer = await response.json();
    } catch (error) {
      console.warn("explainable-latents: the server does not say what the mask is:", error);
    }
    this.isAsking = false;
    if (asked !== this.asked && this.asked !== undefined) return this.ask();
    this.root.ariaBusy = "false";
    if (asked === this.asked) this.receive(answer, status);
  }

  receive(answer, status) {
    this.outline = answer?.lines ? answer : null;
    this.answer = answer;
    this.status = status;
    this.say();
    this.inspector.redraw();
  }

  /** Say how large the mask is, or why there is none; and what was written. */
  say() {
    const lines = [this.said, this.described(), ...this.remarks()];
    this.note.textContent = lines.filter(Boolean).join(" ");
  }

  described() {
    if (!this.answer) return this.asked === undefined ? translated("This step or layer has no map of the word.") : "";
    if (this.status === GONE) {
      return translated("The server no longer has these maps: change a setting of this node and run. Saliency Overlay makes them anew without sampling.");
    }
    if (this.status === TOO_LARGE) {
      return translated("These maps take more than 256 MB, too much to be tuned here: show fewer steps, words or pictures.");
    }
    const { problem, inside, is_soft: isSoft } = this.answer;
    if (problem) return problem;
    if (inside === undefined) return translated("The server does not say what the mask is.");
    const share = translated("{n} % inside.", { n: (100 * inside).toFixed(1) });
    return isSoft ? `${share} ${translated("The outline is where the mask is one half.")}` : share;
  }

  /** What the user has to know of the mask nodes. */
  remarks() {
    const problems = this.targets.flatMap(({ problem, title }) => (problem ? [translated(problem, { node: title })] : []));
    const isRefineAlone = this.refiners.length && this.inspector.maps.powers.length > 1;
    const nothing = isRefineAlone
      ? "No mask node reads these maps, so only refine can be applied."
      : "No mask node reads these maps, so there is nothing to apply to.";
    if (!this.targets.length) problems.push(translated(nothing));
    const most = this.inspector.maps.powers.at(-1);
    for (const { title, power } of this.refiners.filter((each) => each.power > most)) {
      problems.push(translated("{node} has refine {n}, and these maps {most}: run once to see it.", { node: title, n: power, most }));
    }
    const { target } = this;
    const linked = target?.linked ?? [];
    if (linked.length) {
      const names = { node: target.title, names: linked.join(", ") };
      problems.push(translated("{node} gets {names} from another node; the outline takes what its box shows.", names));
    }
    return problems;
  }

  /** Write what is tuned into the mask node that is shown, or into all where the word alone is, and refine where the maps
   * come from; as one step. */
  write() {
    const targets = this.target ? [this.target] : this.usable;
    const { shaping } = this;
    const tuned = { ...this.tuned };
    const said = [];
    const left = new Set(Object.keys(tuned));
    const refiners = "refine" in tuned ? this.refiners : [];
    const writing = [...targets.map((each) => [each, shaping]), ...refiners.map((each) => [each, { refine: this.power }])];
    asOneStep(() => {
      for (const [each, values] of writing) {
        const { written, refused } = each.write(values);
        const names = written.map((name) => this.called(name)).join(", ");
        if (written.length) said.push(translated("Written to {node}: {names}.", { node: each.title, names }));
        for (const name of written) left.delete(name);
        for (const [name, reason] of refused) {
          const why = translated(reason, { node: each.title });
          said.push(translated("Not written: {name}, as {why}.", { name: this.called(name), why }));
        }
      }
      if ("refine" in tuned && !refiners.length) {
        const why = translated("no node was found that refines these maps");
        said.push(translated("Not written: {name}, as {why}.", { name: this.called("refine"), why }));
      }
      const others = Object.keys(shaping).length ? this.usable.filter((one) => !targets.includes(one)) : [];
      for (const each of others) {
        said.push(translated("Not written to {node}: another mask is shown.", { node: each.title }));
      }
      const kept = Object.fromEntries([...left].map((name) => [name, tuned[name]]));
      this.keep({ tuned: kept });
    });
    this.said = said.join(" ");
    this.say();
  }

  called(name) {
    return translated(SLIDERS[name]?.[0] ?? name);
  }

  /** Draw the outline of the mask, visible on every colour. */
  draw(context) {
    if (!this.outline) return;
    const { lines, size } = this.outline;
    const [x, y] = [context.canvas.width / size[0], context.canvas.height / size[1]];
    const { width, clientWidth } = context.canvas;
    const pixel = clientWidth ? Math.max(1, width / clientWidth) : 1; // of the page, where the canvas is shown smaller
    context.globalAlpha = 1;
    context.lineCap = "square";
    for (const [colour, thickness] of [["#000", 3], ["#fff", 1.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = thickness * pixel;
      context.beginPath();
      for (let i = 0; i < lines.length; i += 4) {
        context.moveTo(lines[i] * x, lines[i + 1] * y);
        context.lineTo(lines[i + 2] * x, lines[i + 3] * y);
      }
      context.stroke();
    }
  }
}

// Whatever changes in the graph may be a setting of a mask node, or the way to one.
api.addEventListener("graphChanged", () => {
  const root = app.rootGraph ?? app.graph;
  for (const tuner of tuners) {
    // A workflow that is closed tells only the nodes outside its subgraphs that they are removed.
    const { graph } = tuner.node;
    if (graph === root || root.subgraphs?.get(graph?.id) === graph) tuner.update();
    else tuners.delete(tuner);
  }
});
