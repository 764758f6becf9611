/** Chips under Parse Subjects: for every word a button that makes it a subject, the scene, or neither. */

import { app } from "../../scripts/app.js";
import { rolesOf, withRole } from "./override.js";
import { addPanel, afterCall, asOneStep, createElement, growToFit, store } from "./panel.js";

// The entry of the node's `ui` output and of its saved properties: { prompt, words: [{ text, nth, count, role }] }.
const KEY = "el_chips";
const HEIGHT = 96;
const NEXT_ROLE = { "": "subject", subject: "scene", scene: "" };
const SIGN = { "": "", subject: "● ", scene: "▲ " };
const ROLE_NAME = { "": "not used", subject: "subject", scene: "scene" };
const CLICK_DOES = {
  "": "Click to leave it out",
  subject: "Click to make it a subject",
  scene: "Click to make it the scene",
};

class Chips {
  constructor(node) {
    this.node = node;
    this.note = createElement("p", { class: "el-note", role: "status" });
    this.list = createElement("div", { class: "el-chips", role: "group", "aria-label": "Words of the prompt" });
    this.list.dataset.captureWheel = "true"; // otherwise Nodes 2.0 zooms instead of scrolling
    this.root = createElement("div", {}, this.note, this.list);
    this.buttons = [];
    addPanel(node, "chips", this.root, () => HEIGHT);
    afterCall(node, "onConfigure", () => this.show());
    afterCall(node, "onConnectionsChange", () => this.update());
    afterCall(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    for (const name of ["override", "text"]) {
      const widget = this.widget(name);
      if (widget) afterCall(widget, "callback", () => this.update());
    }
    this.show();
    growToFit(node, this.root, HEIGHT);
  }

  get words() {
    return this.node.properties[KEY]?.words ?? [];
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  isLinked(name) {
    return this.node.inputs?.some((input) => input.name === name && input.link != null);
  }

  receive(words) {
    if (!words) return;
    store(this.node, KEY, words);
    this.show();
  }

  /** Create the buttons for the current words. */
  show() {
    this.buttons = this.words.map((word, index) => {
      return createElement("button", { type: "button", on: { click: () => this.toggle(index) } });
    });
    this.list.replaceChildren(...this.buttons);
    this.update();
  }

  /** Show each word's role according to the text of `override`. */
  update() {
    const override = this.widget("override");
    const roles = rolesOf(this.words, String(override?.value ?? ""));
    const readOnly = !override || this.isLinked("override");
    this.buttons.forEach((button, i) => {
      const { text } = this.words[i];
      button.dataset.role = roles[i];
      button.disabled = readOnly;
      button.textContent = SIGN[roles[i]] + text;
      button.setAttribute("aria-label", `${text}: ${ROLE_NAME[roles[i]]}`);
      button.title = readOnly ? "The override comes from another node." : `${CLICK_DOES[NEXT_ROLE[roles[i]]]}.`;
    });
    this.note.textContent = this.instructions(readOnly);
  }

  instructions(readOnly) {
    if (!this.buttons.length) return "Run once, then choose the words here.";
    const typed = this.isLinked("text") ? undefined : this.widget("text")?.value;
    const changed = typed !== undefined && typed !== this.node.properties[KEY].prompt;
    if (changed) return "The prompt has changed: run to see its words.";
    const change = readOnly ? "the override comes from another node" : "click a word to change its role";
    return `● subject  ▲ scene; ${change}`;
  }

  toggle(index) {
    const override = this.widget("override");
    const before = String(override.value ?? "");
    const role = NEXT_ROLE[rolesOf(this.words, before)[index]];
    asOneStep(() => {
      override.value = withRole(this.words, before, index, role);
      override.callback?.(override.value, app.canvas, this.node);
    });
    this.update();
  }
}

app.registerExtension({
  name: "explainable_latents.chips",
  nodeCreated(node) {
    if (node.comfyClass === "ELParseSubjects") new Chips(node);
  },
});
