/** Chips under a prompt: for every word a button that makes it a subject, the scene, or neither. */

import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { absentWords, rolesOf, withoutAbsent, withRole } from "./override.js";
import { addPanel, afterCall, asOneStep, createElement, growToFit, nodeAt, store } from "./panel.js";
import { translated } from "./texts.js";

// The entry of the node's `ui` output and of its saved properties:
// { prompt, choices: { override, parser, words, which }, words: [{ text, nth, count, role, left_out }],
//   absent: [words], unread: language }.
const KEY = "el_chips";
// The server's message when a run fails on a mistake in `override`: the same entry, and the node's id.
const FAILED = "explainable_latents.chips";
// Of the node's saved properties: what was typed into the box of the prompt before another node's prompt was shown there.
const TYPED = "el_typed";
const NODES = new Set(["ELParseSubjects", "ELPromptWords", "ELShowAttention"]);
// Nodes that put out what is typed into them, as it is: any other node with a text may compute its output from it.
const TEXT_NODES = new Set(["PrimitiveNode", "PrimitiveString", "PrimitiveStringMultiline"]);
// The server's route that reads a prompt before any run, the values that it needs, and how long after the last change
// it is asked, in milliseconds.
const ROUTE = "/explainable_latents/words";
const CHOICES = ["override", "parser", "words", "which"];
const ASKED = ["text", ...CHOICES];
const PAUSE = 250;
const HEIGHT = 124;
const NEXT_ROLE = { "": "subject", subject: "scene", scene: "" };
const SIGN = { "": "", subject: "● ", scene: "▲ " };
const ROLE_NAME = { "": "not used", subject: "subject", scene: "scene" };
const CLICK_DOES = {
  "": "Click to leave it out.",
  subject: "Click to make it a subject.",
  scene: "Click to make it the scene.",
};
const LEFT_OUT = "Not the main subject, so it was left out. Click to take it in.";
const UNREAD = {
  Chinese:
    "Chinese words are found only where the override names them. To have them found, install jieba into ComfyUI's Python.",
  Japanese:
    "Japanese words are found only where the override names them. To have them found, install janome into ComfyUI's Python.",
  other: "Words of this script are found only where the override names them.",
};

const chipsOf = new WeakMap(); // node -> its Chips

class Chips {
  constructor(node) {
    this.node = node;
    chipsOf.set(node, this);
    this.note = createElement("p", { class: "el-note", role: "status" });
    const clear = { type: "button", text: translated("Clear them"), on: { click: () => this.clear() } };
    this.absent = createElement("span");
    this.warning = createElement("p", { class: "el-warning", role: "alert" }, this.absent, createElement("button", clear));
    this.list = createElement("div", { class: "el-chips", role: "group", "aria-label": translated("Words of the prompt") });
    this.list.dataset.captureWheel = "true"; // otherwise Nodes 2.0 zooms instead of scrolling
    this.problem = createElement("p", { class: "el-warning", "aria-live": "polite" });
    this.root = createElement("div", {}, this.note, this.warning, this.problem, this.list);
    this.buttons = [];
    this.question = 0; // number of the newest question to the server
    this.isAsking = false;
    this.followed = new WeakSet(); // widgets of other nodes
    addPanel(node, "chips", this.root, () => HEIGHT);
    afterCall(node, "onConfigure", () => this.changed());
    afterCall(node, "onAfterGraphConfigured", () => this.changed());
    afterCall(node, "onConnectionsChange", () => this.changed());
    afterCall(node, "onRemoved", () => clearTimeout(this.timer));
    afterCall(node, "onExecuted", (output) => this.receive(output?.[KEY]?.at(-1)));
    for (const name of ASKED) {
      const widget = this.widget(name);
      if (widget) afterCall(widget, "callback", () => this.changed());
    }
    this.changed();
    growToFit(node, this.root, HEIGHT);
  }

  get stored() {
    return this.node.properties[KEY];
  }

  /** What the server said last of what is typed; else what the last run said. */
  get shown() {
    return this.live ?? this.stored;
  }

  get words() {
    return this.shown?.words ?? [];
  }

  get override() {
    return String(this.widget("override")?.value ?? "");
  }

  widget(name) {
    return this.node.widgets?.find((widget) => widget.name === name);
  }

  isLinked(name) {
    return this.node.inputs?.some((input) => input.name === name && input.link != null);
  }

  /** The prompt as it stands now; undefined where another node computes it, or the node is not in a graph yet. */
  prompt() {
    if (!this.isLinked("text")) return this.widget("text")?.value;
    if (!this.node.graph) return undefined; // a copy for the clipboard or for a subgraph
    const source = this.node.getInputNode(this.node.inputs.findIndex((input) => input.name === "text"));
    const widget = TEXT_NODES.has(source?.type) ? source.widgets?.[0] : undefined;
    if (typeof widget?.value !== "string" || source.inputs?.some((input) => input.link != null)) return undefined;
    if (!this.followed.has(widget)) {
      this.followed.add(widget);
      afterCall(widget, "callback", () => this.changed());
    }
    return widget.value;
  }

  /** Whether the server's words are of what the node says now; what other nodes give need not be known here. */
  isOf({ choices, prompt }) {
    const isSame = (name) => this.isLinked(name) || choices[name] === this.widget(name)?.value;
    return CHOICES.every(isSame) && [undefined, prompt].includes(this.prompt());
  }

  /** Whether the words that are shown are those of another prompt: they are not to be clicked. */
  isOld() {
    return ![undefined, this.shown?.prompt].includes(this.prompt());
  }

  receive(words) {
    if (!words) return;
    // A run that was queued before the last change says less than the server; one after it knows the tokens, too.
    const isCurrent = CHOICES.every((name) => words.choices[name] === this.widget(name)?.value);
    if (isCurrent && words.prompt === this.prompt()) this.live = undefined;
    asOneStep(() => {
      store(this.node, KEY, words);
      this.update(); // which may write a linked prompt into its box
    });
  }

  /** Ask the server for the words a moment after the last change, where it can be told what to read. */
  changed() {
    clearTimeout(this.timer);
    this.question += 1; // an answer to an older one is no longer wanted
    const text = this.prompt();
    this.isAsking = text !== undefined && !ASKED.some((name) => name !== "text" && this.isLinked(name));
    if (this.isAsking) {
      const values = ASKED.map((name) => [name, this.widget(name)?.value]);
      this.timer = setTimeout(() => this.ask({ ...Object.fromEntries(values), text }), PAUSE);
    } else {
      this.live = undefined;
    }
    this.update();
  }

  async ask(values) {
    const question = this.question;
    let answer;
    try {
      const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(values) };
      const response = await api.fetchApi(ROUTE, options);
      answer = response.ok ? await response.json() : undefined;
    } catch (error) {
      console.warn("explainable-latents: the server does not say which words the prompt has:", error);
    }
    if (question !== this.question) return;
    this.isAsking = false;
    this.live = answer;
    this.update();
  }

  /** Show a button for each word, and its role according to the text of `override`. */
  update() {
    if (this.words.length !== this.buttons.length) {
      this.buttons = this.words.map((_, index) => {
        return createElement("button", { type: "button", on: { click: () => this.toggle(index) } });
      });
      this.list.replaceChildren(...this.buttons);
    }
    const roles = rolesOf(this.words, this.override);
    const readOnly = !this.widget("override") || this.isLinked("override");
    const isOld = this.isOld();
    this.buttons.forEach((button, i) => {
      const { text, left_out: mentioned } = this.words[i];
      const isLeftOut = Boolean(mentioned) && !roles[i];
      const role = translated(isLeftOut ? "left out" : ROLE_NAME[roles[i]]);
      button.dataset.role = roles[i];
      button.toggleAttribute("data-left-out", isLeftOut);
      button.disabled = readOnly || isOld;
      button.textContent = (isLeftOut ? "○ " : SIGN[roles[i]]) + text;
      button.setAttribute("aria-label", `${text}: ${role}`);
      const click = isLeftOut ? LEFT_OUT : CLICK_DOES[NEXT_ROLE[roles[i]]];
      button.title = translated(readOnly ? "The override comes from another node." : click);
    });
    const prompt = this.prompt();
    this.note.textContent = this.instructions(readOnly, prompt);
    const absent = readOnly ? [] : absentWords(this.override, this.shown?.absent ?? []);
    this.absent.textContent = translated("Not in this prompt, left out: {words}.", { words: absent.join(", ") });
    this.warning.hidden = !absent.length;
    this.problem.textContent = this.shown?.problem ?? "";
    this.problem.hidden = !this.problem.textContent;
    this.fillBox(prompt ?? this.stored?.prompt);
    this.root.ariaBusy = String(this.isAsking);
  }

  /** The box of a linked prompt is greyed: it shows that prompt, and what was typed comes back when the link goes. */
  fillBox(linked) {
    const box = this.widget("text");
    if (!box) return;
    if (app.configuringGraph) {
      requestAnimationFrame(() => this.update()); // what the workflow says of the box and its links is not all there yet
    } else if (!this.isLinked("text")) {
      const typed = this.node.properties[TYPED];
      delete this.node.properties[TYPED]; // before the box hears of it, which comes back here
      if (typeof typed === "string") box.value = typed;
    } else if (typeof linked === "string" && box.value !== linked) {
      this.node.properties[TYPED] ??= box.value;
      box.value = linked;
    }
  }

  instructions(readOnly, prompt) {
    if (this.isAsking && prompt !== this.shown?.prompt) return this.note.textContent; // until the answer is there
    if (!this.shown) return translated("Run once, then choose the words here.");
    if (prompt !== undefined && prompt !== this.shown.prompt) {
      return translated("The prompt has changed: run to see its words.");
    }
    const unread = UNREAD[this.shown.unread];
    if (unread) return translated(unread);
    if (readOnly) return translated("● subject  ▲ scene; the override comes from another node");
    return translated(
      this.words.some((word) => word.left_out)
        ? "● subject  ▲ scene  ○ left out; click a word to change its role"
        : "● subject  ▲ scene; click a word to change its role",
    );
  }

  toggle(index) {
    if (this.isOld()) return this.update(); // a node may have changed the prompt without a word
    const role = NEXT_ROLE[rolesOf(this.words, this.override)[index]];
    this.write(withRole(this.words, this.override, index, role));
  }

  /** Take the words out of the override that the prompt lacks. */
  clear() {
    this.write(withoutAbsent(this.override, this.shown.absent));
  }

  write(text) {
    const override = this.widget("override");
    asOneStep(() => {
      override.value = text;
      override.callback?.(text, app.canvas, this.node);
    });
    this.update();
  }
}

// The same number may be that of a node in another workflow, which is in front now: its words stay as they are.
api.addEventListener(FAILED, ({ detail: { node, run, ...words } }) => {
  const chips = chipsOf.get(nodeAt(node));
  if (chips?.isOf(words)) chips.receive(words);
});

app.registerExtension({
  name: "explainable_latents.chips",
  nodeCreated(node) {
    if (NODES.has(node.comfyClass)) new Chips(node);
  },
});
