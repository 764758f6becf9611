/** The mask nodes that read the maps of an inspector: where they are in the graph, what is set on them, and writing it. */

import { app } from "../../scripts/app.js";

export const SALIENCY = "EL_SALIENCY";
// Through these a sampler or report, which puts out maps, knows the node that says how its masks are made.
const MASKING = ["EL_MASKING", "EL_REPORT"];
const TO_MASK = "ELSaliencyToMask";
const MASKINGS = new Set(["ELMaskFromAttention", "ELMaskFromGradient"]);
const SMOOTH = "ELSmoothSaliency";
const DILATE = "ELDilateSaliency";
const [NEVER, BYPASS] = [2, 4]; // a node's mode
const [SUBGRAPH_INPUTS, SUBGRAPH_OUTPUTS] = [-10, -20]; // the ends of links to the outside of a subgraph

/** The settings of a mask, as `Shaping` of nodes/core/maps/masks.py names them, as long as no node says otherwise. */
export const UNSET = {
  rule: "mean",
  value: 0,
  combine: "union",
  invert: false,
  smooth_sigma: 0,
  smooth_size: 3,
  dilate_size: 3,
  dilate_iterations: 0,
  smooth_and_dilate: "before the threshold",
  flat_map: "error",
  parts: "all",
  part_count: 1,
  points: "",
  fill_holes: false,
};

/** Settings that a node of Gaussian Smooth or Dilate has, where the mask node itself has not: its type, its widget. */
const FILTERS = {
  smooth_sigma: [SMOOTH, "sigma"],
  smooth_size: [SMOOTH, "size"],
  dilate_size: [DILATE, "size"],
  dilate_iterations: [DILATE, "iterations"],
};

export const widgetOf = (node, name) => node.widgets?.find((widget) => widget.name === name);
export const isLinked = (node, name) =>
  node.inputs?.some((input) => (input.widget?.name ?? input.name) === name && input.link != null);
export const inputOf = (node, types) => node.inputs?.find((input) => types.includes(input.type));
export const isFilter = (node) => node.type === SMOOTH || node.type === DILATE;
/** Whether what enters a node leaves it unchanged. */
const passesOn = (node) => node.type === "Reroute" || (isFilter(node) && node.mode === BYPASS);

/** The nodes that show a subgraph, in any graph. */
function instancesOf(subgraph) {
  const root = subgraph.rootGraph ?? app.graph;
  const graphs = [root, ...(root.subgraphs?.values() ?? [])];
  return graphs.flatMap((graph) => graph.nodes.filter((node) => node.subgraph === subgraph));
}

/** The outputs, [{ node, slot }], that a link comes from, through reroutes and subgraphs. */
export function sources(graph, id) {
  const link = id == null ? null : graph.getLink(id);
  if (!link) return [];
  if (link.origin_id === SUBGRAPH_INPUTS) {
    return instancesOf(graph).flatMap((node) => sources(node.graph, node.inputs[link.origin_slot]?.link));
  }
  const node = graph.getNodeById(link.origin_id);
  if (node?.subgraph) {
    return (node.subgraph.outputs[link.origin_slot]?.linkIds ?? []).flatMap((each) => sources(node.subgraph, each));
  }
  if (node && passesOn(node)) return sources(graph, node.inputs[0]?.link);
  return node ? [{ node, slot: link.origin_slot }] : [];
}

/** The mask nodes behind these links, [{ node, filters }], through reroutes, subgraphs and filters of maps. */
function readers(graph, ids, filters = []) {
  return [...(ids ?? [])].flatMap((id) => {
    const link = graph.getLink(id);
    if (link?.target_id === SUBGRAPH_OUTPUTS) {
      return instancesOf(graph).flatMap((node) => readers(node.graph, node.outputs[link.target_slot]?.links, filters));
    }
    const node = link && graph.getNodeById(link.target_id);
    if (!node) return [];
    if (node.subgraph) return readers(node.subgraph, node.subgraph.inputs[link.target_slot]?.linkIds, filters);
    if (passesOn(node)) return readers(graph, node.outputs[0]?.links, filters);
    if (isFilter(node)) return readers(graph, node.outputs[0]?.links, [...filters, node]);
    return node.type === TO_MASK ? [{ node, filters }] : [];
  });
}

/** The nodes that say how a sampler's masks are made. */
export function maskingsOf(node) {
  const given = inputOf(node, MASKING);
  return sources(node.graph, given?.link).flatMap(({ node: source }) =>
    MASKINGS.has(source.type) ? [{ node: source, filters: [] }] : maskingsOf(source),
  );
}

/** The mask nodes that use the maps which this node shows, each once, with what is set on them. */
export function maskNodesOf(node) {
  if (!node.graph) return []; // a copy for the clipboard or for a subgraph
  const given = inputOf(node, [SALIENCY]);
  const own = (node.outputs ?? []).flatMap(({ type }, slot) => (type === SALIENCY ? [{ node, slot }] : []));
  const origins = given ? sources(node.graph, given.link) : own;
  const found = origins.flatMap(({ node: origin, slot }) => [
    ...readers(origin.graph, origin.outputs[slot]?.links),
    ...maskingsOf(origin),
  ]);
  const seen = new Set();
  const once = found.filter((each) => !seen.has(each.node) && seen.add(each.node));
  return once.map((each) => new MaskNode({ ...each, maker: given ? undefined : node }));
}

export class MaskNode {
  /** maker: the node that makes the maps and shows them, where these may be others than those that it puts out. */
  constructor({ node, filters, maker }) {
    this.node = node;
    this.filters = filters;
    this.maker = maker;
    /** The same as long as the workflow has the node. */
    this.key = `${node.graph.id}/${node.id}`;
    this.title = `${node.title} #${node.id}`;
  }

  /** Why the mask of this node cannot be shown or changed from here; undefined if it can. */
  get problem() {
    if (this.node.mode === NEVER || this.node.mode === BYPASS) return "{node} is switched off.";
    const layers = String(widgetOf(this.node, "layer")?.value ?? "").split(",");
    return layers.length > 1 ? "{node} intersects the masks of several layers." : undefined;
  }

  /** Whether its mask is that of the shown map alone. */
  needsMap(tuned) {
    return !this.maker && { ...this.settings, ...tuned }.combine === "each";
  }

  /** What is set for the mask: on the node, and on the filters before it. */
  get settings() {
    const set = { ...UNSET };
    for (const name of Object.keys(UNSET)) {
      const widget = this.#place(name)?.widget;
      if (widget) set[name] = widget.value;
    }
    return set;
  }

  /** The settings that another node gives: the boxes of these need not show what counts. */
  get linked() {
    const places = [...Object.keys(UNSET), "words", "channels"].map((name) => [name, this.#place(name)]);
    return places.filter(([, place]) => place && isLinked(place.node, place.widget.name)).map(([name]) => name);
  }

  /** What the server needs for the mask with `tuned` settings. map, frame, word: of the shown map, its number, its step. */
  request(tuned, { map, frame, word }) {
    const isMasking = MASKINGS.has(this.node.type);
    const shaping = { ...this.settings, ...tuned };
    const filters = isMasking ? [] : this.#filters(shaping);
    if (!isMasking) Object.assign(shaping, { smooth_sigma: 0, dilate_iterations: 0 }); // the filters do that
    const isEach = shaping.combine === "each";
    if (isEach) shaping.combine = UNSET.combine;
    const channels = widgetOf(this.node, "channels")?.value;
    const isOther = Boolean(this.maker); // the shown map has another number among those that are put out
    const hasFrames = isMasking || (isOther && isEach && widgetOf(this.maker, "over_steps")?.value === "each");
    return {
      of_output: isOther,
      shaping,
      filters,
      words: isOther && isEach ? word : (widgetOf(this.node, "words")?.value ?? ""),
      number: this.needsMap(tuned) ? map : null,
      frame: hasFrames ? frame : null,
      ...(channels === undefined ? {} : { channels }),
    };
  }

  /** Write settings: { written: [names], refused: [[name, reason]] }; the caller makes it one step that can be undone. */
  write(tuned) {
    const [written, refused] = [[], []];
    for (const [name, value] of Object.entries(tuned)) {
      const place = this.#place(name);
      if (!place) {
        const isSmooth = FILTERS[name]?.[0] === SMOOTH;
        refused.push([name, isSmooth ? "{node} has no Gaussian Smooth before it" : "{node} has no Dilate before it"]);
      } else if (isLinked(place.node, place.widget.name)) {
        refused.push([name, "{node} gets it from another node"]);
      } else {
        place.widget.value = value;
        place.widget.callback?.(value, app.canvas, place.node);
        written.push(name);
      }
    }
    return { written, refused };
  }

  /** Where a setting is: { node, widget }; undefined if nowhere. */
  #place(name) {
    const own = widgetOf(this.node, name);
    if (own) return { node: this.node, widget: own };
    const [type, input] = FILTERS[name] ?? [];
    const filter = this.filters.find((each) => each.type === type);
    const widget = filter && widgetOf(filter, input);
    return widget && { node: filter, widget };
  }

  /** What the filters do to the maps, in their order; those that are only tuned come first (smooth) and last (dilate). */
  #filters({ smooth_sigma, smooth_size, dilate_size, dilate_iterations }) {
    const first = (type) => this.filters.find((each) => each.type === type);
    const list = this.filters.map((each) => {
      const value = (name) => widgetOf(each, name).value;
      const isFirst = each === first(each.type);
      if (each.type === SMOOTH) {
        return isFirst ? ["smooth", smooth_sigma, smooth_size] : ["smooth", value("sigma"), value("size")];
      }
      const numbers = isFirst ? [dilate_size, dilate_iterations] : [value("size"), value("iterations")];
      return [value("operation"), ...numbers];
    });
    if (!first(SMOOTH) && smooth_sigma) list.unshift(["smooth", smooth_sigma, smooth_size]);
    if (!first(DILATE) && dilate_iterations) list.push(["dilate", dilate_size, dilate_iterations]);
    return list;
  }
}

/** What the server needs for the mask of one map alone. */
export function requestOfMap(settings, map) {
  return { shaping: { ...settings, combine: UNSET.combine }, filters: [], words: "", number: map, frame: null };
}
