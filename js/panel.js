/** What the panels under our nodes share: building elements, putting them on a node, keeping their state with it. */

const style = document.createElement("link");
style.rel = "stylesheet";
style.href = new URL("./panel.css", import.meta.url).href;
document.head.append(style);

/** Keys that the panels use themselves and the canvas must not see. */
const OWN_KEYS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "Enter", " "]);

/** An element with properties and attributes; text always goes in as text, never as markup. */
export function make(tag, { text, on = {}, ...attributes } = {}, ...children) {
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
 * Puts `root` under the node's widgets, in both renderers of the front end. It is no input: it is neither saved among
 * the widget values nor sent to the server. `height()` is what it needs at least, in pixels.
 */
export function addPanel(node, name, root, height) {
  root.classList.add("el-panel");
  root.addEventListener("keydown", (event) => {
    if (OWN_KEYS.has(event.key) && !event.ctrlKey && !event.metaKey) event.stopPropagation();
  });
  const widget = node.addDOMWidget(name, "el-panel", root, {
    serialize: false,
    hideOnZoom: false,
    getMinHeight: height,
  });
  widget.serialize = false;
  return widget;
}

/** Makes room on the node after its panel's needs have changed. */
export function fit(node, root, height, width = 0) {
  root.style.minHeight = `${height - 20}px`; // the classic renderer leaves 10 pixels around it
  const wanted = [Math.max(node.size[0], width), Math.max(node.size[1], node.computeSize()[1])];
  if (wanted.some((length, i) => length > node.size[i])) node.setSize(wanted);
  node.setDirtyCanvas(true, true);
}

/** Changes what the node keeps in the workflow under `key`, as one step that the front end saves and can undo. */
export function keep(node, key, change) {
  node.graph?.beforeChange();
  node.properties[key] = { ...node.properties[key], ...change };
  node.graph?.afterChange();
}

/** Calls `listener` after each time the node's method `name` has been called. */
export function after(node, name, listener) {
  const before = node[name];
  node[name] = function (...given) {
    const result = before?.apply(this, given);
    listener(...given);
    return result;
  };
}
