/** Token chips under Parse Subjects: the prompt's words, each a button that makes it subject, scene, or neither. */

import { app } from "../../scripts/app.js";
import { rolesOf, withRole } from "./override.js";
import { addPanel, after, fit, keep, make } from "./panel.js";

const KEY = "el_chips"; // in the node's `ui` and in its properties: { prompt, words: [{ text, nth, count, role }] }
const HEIGHT = 96;
const NEXT = { "": "subject", subject: "scene", scene: "" };
const MARK = { "": "", subject: "● ", scene: "▲ " };
const SAID = { "": "not used", subject: "subject", scene: "scene" };

class Chips {
  constructor(node) {
    this.node = node;
    this.note = make("p", { class: "el-note", role: "status" });
    this.list = make("div", { class: "el-chips", role: "group", "aria-label": "Words of the prompt" });
    this.list.dataset.captureWheel = "true"; // or Nodes 2.0 zooms instead of scrolling
    this.root = make("div", {}, this.note, this.list);
    this.buttons = [];
    addPanel(node, "chips", this.root, () => HEIGHT);
    after(node, "onConfigure", () => this.show());
    after(node, "onConnectionsChange", () => this.update());
    after(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    for (const name of ["override", "text"]) {
      const widget = this.widget(name);
      if (widget) after(widget, "callback", () => this.update());
    }
    this.show();
    fit(node, this.root, HEIGHT);
  }

  get words() {
    return this.node.properties[KEY]?.words ?? [];
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  linked(name) {
    return this.node.inputs?.some((input) => input.name === name && input.link != null);
  }

  receive(words) {
    if (!words) return;
    keep(this.node, KEY, words);
    this.show();
  }

  /** Lay the chips out anew. */
  show() {
    this.buttons = this.words.map((word, index) => {
      return make("button", { type: "button", on: { click: () => this.toggle(index) } });
    });
    this.list.replaceChildren(...this.buttons);
    this.update();
  }

  /** Show each chip's role, as the override now says. */
  update() {
    const override = this.widget("override");
    const roles = rolesOf(this.words, String(override?.value ?? ""));
    const fixed = !override || this.linked("override");
    this.buttons.forEach((button, i) => {
      const { text } = this.words[i];
      button.dataset.role = roles[i];
      button.disabled = fixed;
      button.textContent = MARK[roles[i]] + text;
      button.setAttribute("aria-label", `${text}: ${SAID[roles[i]]}`);
      button.title = fixed ? "The override comes from another node." : `Click: ${SAID[NEXT[roles[i]]]}`;
    });
    this.note.textContent = this.advice(fixed);
  }

  advice(fixed) {
    if (!this.buttons.length) return "Run once, then choose words here.";
    const typed = this.linked("text") ? undefined : this.widget("text")?.value;
    const changed = typed !== undefined && typed !== this.node.properties[KEY].prompt;
    if (changed) return "The prompt has changed: run to see its words.";
    return `● subject  ▲ scene; ${fixed ? "the override comes from another node" : "click a word to change it"}`;
  }

  toggle(index) {
    const override = this.widget("override");
    const before = String(override.value ?? "");
    const role = NEXT[rolesOf(this.words, before)[index]];
    this.node.graph?.beforeChange();
    override.value = withRole(this.words, before, index, role);
    override.callback?.(override.value, app.canvas, this.node);
    this.node.graph?.afterChange();
    this.update();
  }
}

app.registerExtension({
  name: "explainable_latents.chips",
  nodeCreated(node) {
    if (node.comfyClass === "ELParseSubjects") new Chips(node);
  },
});
