/** The nodes that say how often an inspector's maps are refined: where they are in the graph, and writing it. */

import { app } from "../../scripts/app.js";
import { inputOf, isFilter, isLinked, maskingsOf, SALIENCY, sources, widgetOf } from "./mask_nodes.js";

const ATTENTION = "EL_ATTENTION";
const REFINE = "refine"; // its widget

/** The nodes that say it for the maps that this node puts out: itself, or what is before it. */
function behind(origin) {
  if (widgetOf(origin, REFINE)) return [origin];
  const given = isFilter(origin) ? origin.inputs[0] : inputOf(origin, [ATTENTION]);
  if (given) return sources(origin.graph, given.link).flatMap(({ node }) => behind(node));
  return maskingsOf(origin).map(({ node }) => node);
}

/** The nodes that say how often the maps are refined that this node shows, each once. */
export function refiningNodesOf(node) {
  if (!node.graph) return []; // a copy for the clipboard or for a subgraph
  const given = inputOf(node, [SALIENCY]);
  const origins = given ? sources(node.graph, given.link).map((each) => each.node) : [node];
  return [...new Set(origins.flatMap(behind))].map((each) => new RefiningNode(each));
}

class RefiningNode {
  constructor(node) {
    this.node = node;
    this.title = `${node.title} #${node.id}`;
  }

  /** How often its box says; undefined if another node says it, or the box holds no number. */
  get power() {
    const { value } = widgetOf(this.node, REFINE);
    return !isLinked(this.node, REFINE) && Number.isInteger(value) ? value : undefined;
  }

  /** Write it: { written: [names], refused: [[name, reason]] }; the caller makes it one step that can be undone. */
  write({ refine }) {
    if (isLinked(this.node, REFINE)) return { written: [], refused: [[REFINE, "{node} gets it from another node"]] };
    const widget = widgetOf(this.node, REFINE);
    widget.value = refine;
    widget.callback?.(refine, app.canvas, this.node);
    return { written: [REFINE], refused: [] };
  }
}
