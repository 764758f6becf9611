/** What the panels under our nodes share: creating elements, attaching them to a node, saving their state with it. */

import { app } from "../../scripts/app.js";

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./panel.css", import.meta.url).href;
document.head.append(style);

/** Keys that must not pass on to the graph: those that the panels use themselves, and those that delete the node. */
const OWN_KEYS = new Set([
  ..."ArrowLeft ArrowRight ArrowUp ArrowDown Home End Enter".split(" "),
  " ",
  "Delete",
  "Backspace",
]);

const PANEL = "el-panel"; // the type of our widgets; a node may have several, each with a name of its own
let nextFrame;

/** Creates an element. `on`: listeners by event; other options become attributes. `text` is never read as markup. */
export function createElement(tag, { text, on = {}, ...attributes } = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined) element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  for (const [event, listener] of Object.entries(on)) element.addEventListener(event, listener);
  element.append(...children);
  return element;
}

/**
 * Puts `root` under the node's widgets, in both renderers of the front end. It is not an input: it is neither saved
 * with the widget values nor sent to the server. `height()`: its least height in pixels.
 */
export function addPanel(node, name, root, height) {
  root.classList.add("el-panel");
  root.dataset.panel = name;
  root.addEventListener("keydown", (event) => {
    if (OWN_KEYS.has(event.key) && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  afterCall(node, "onAdded", putPanelsInPlaceSoon);
  const widget = node.addDOMWidget(name, PANEL, root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: height,
  });
  widget.serialize = false;
  if (node.graph) putPanelsInPlaceSoon(); // it comes later than the node
  return widget;
}

/**
 * Nodes 2.0 keeps what it shows for a node as long as its place in the page lives, and finds that place by the node's
 * number. Undo, redo and a change of workflow or subgraph put another node with the same number there: its panel would
 * stand nowhere, and clicks would reach the panel of a node that is gone. So each place gets the panel of its node.
 */
function putPanelsInPlace() {
  for (const shown of document.querySelectorAll(".el-panel")) {
    const id = shown.closest("[data-node-id]")?.dataset.nodeId;
    const node = id === undefined ? null : app.canvas.graph?.getNodeById(id);
    const isThis = (widget) => widget.type === PANEL && widget.name === shown.dataset.panel;
    const panel = node?.widgets?.find(isThis)?.element;
    if (panel && panel !== shown) shown.replaceWith(panel);
  }
  app.canvas.setDirty(true, true); // the classic renderer places a panel only when it draws while the panel is there
}

/** The same once the page has followed a change of the graph, which it does before the next frame. */
function putPanelsInPlaceSoon() {
  cancelAnimationFrame(nextFrame);
  nextFrame = requestAnimationFrame(putPanelsInPlace);
}

app.registerExtension({
  name: "explainable_latents.panels",
  setup: () => app.canvas.canvas.addEventListener("litegraph:set-graph", putPanelsInPlaceSoon),
});

/** Enlarges the node until its panel fits: `height` and `width` are the panel's least size in pixels. */
export function growToFit(node, root, height, width = 0) {
  root.style.minHeight = `${height - 20}px`; // the classic renderer leaves 10 pixels above and below
  const needed = [Math.max(node.size[0], width), Math.max(node.size[1], node.computeSize()[1])];
  if (needed.some((length, i) => length > node.size[i])) node.setSize(needed);
  node.setDirtyCanvas(true, true);
}

/**
 * Calls `edit`, which changes the node, as one step that the user can undo. The canvas has to be told, not the graph:
 * only then does the front end compare the workflow at once. Otherwise it would not see a click's change before the
 * next click, one undo would take back two clicks, and a reload would lose the last one.
 */
export function asOneStep(edit) {
  app.canvas.emitBeforeChange();
  try {
    edit();
  } finally {
    app.canvas.emitAfterChange();
  }
}

/** Merges `change` into what the workflow stores for the node under `key`, as one step that the user can undo. */
export function store(node, key, change) {
  asOneStep(() => {
    node.properties[key] = { ...node.properties[key], ...change };
  });
}

/** Calls `listener` with the same arguments after every call of the node's method `name`. */
export function afterCall(node, name, listener) {
  const original = node[name];
  node[name] = function (...args) {
    const result = original?.apply(this, args);
    listener(...args);
    return result;
  };
}

const newest = new WeakMap(); // element -> what it waits for

/** Marks an element as busy, for screen readers too, until `work` has ended; of several at a time the newest counts. */
export async function busyUntil(element, work) {
  newest.set(element, work);
  element.ariaBusy = "true";
  try {
    await work;
  } finally {
    if (newest.get(element) === work) element.ariaBusy = "false";
  }
}

/** The node with an execution id: its number, after those of the subgraphs that it is in. */
export function nodeAt(executionId) {
  let node = null;
  let graph = app.rootGraph ?? app.graph;
  for (const id of String(executionId).split(":")) {
    node = graph?.getNodeById(id);
    graph = node?.subgraph;
  }
  return node;
}
