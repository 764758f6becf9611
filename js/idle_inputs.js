/** Greys the inputs that do nothing with the choices that are made on the node. Their values stay as they are. */

import { app } from "../../scripts/app.js";
import { afterCall } from "./panel.js";

const isCached = (policy) => policy === "cached reference";

// Input -> the inputs that decide, and their values with which it does nothing. The value of a socket is whether it is
// connected. Where another node gives the value of a box, it is not known, and nothing is greyed.
const IDLE = {
  value: [["rule"], (rule) => rule === "mean" || rule === "otsu"],
  inside_timestep: [["inside"], (policy) => !isCached(policy)],
  outside_timestep: [["outside"], (policy) => !isCached(policy)],
  smooth_size: [["smooth_sigma"], (sigma) => sigma === 0],
  dilate_size: [["dilate_iterations"], (times) => times === 0],
  smooth_and_dilate: [["smooth_sigma", "dilate_iterations"], (sigma, times) => sigma === 0 && times === 0],
  refine_layers: [["refine"], (times) => times === 0],
  part_count: [["parts"], (kept) => kept !== "largest"],
  points: [["parts"], (kept) => kept !== "touching points"],
  reading: [["look_for"], (words) => !words.trim()],
  share: [["space"], (space) => space === "output"],
  over_steps: [["each_layer"], (isEach) => isEach],
  solver: [["definition"], (definition) => definition === "aggregated"],
  layer: [["definition"], (definition) => definition === "aggregated"],
  seed: [["add_noise"], (isAdded) => !isAdded],
  count: [["points", "mask"], (points, hasMask) => points.trim() && !hasMask],
  file: [["classifier"], (isConnected) => isConnected],
  opacity: [["image"], (isConnected) => !isConnected],
  refinement: [["act_on"], (form) => form === "prediction"],
  repeats: [["act_on"], (form) => form === "prediction"],
  stop_for_good: [["until"], (loss) => loss === 0],
  inside_weight: [["loss"], (loss) => loss === "box share"],
  outside_weight: [["loss"], (loss) => loss === "box share"],
  edge_weight: [["loss"], (loss) => loss !== "BoxDiff"],
  blend_after: [["masking", "source_masking"], (target, source) => !target && !source],
};

function greyIdleInputs(node) {
  const widget = (name) => node.widgets?.find((each) => each.name === name);
  const input = (name) => node.inputs?.find((each) => each.name === name);
  const isThere = (name) => widget(name) || input(name);
  const isLinked = (name) => input(name)?.link != null;
  const isUnknown = (name) => widget(name) && isLinked(name);
  const value = (name) => (widget(name) ? widget(name).value : isLinked(name));
  for (const [name, [deciders, isIdle]] of Object.entries(IDLE)) {
    if (!widget(name) || !deciders.every(isThere)) continue;
    widget(name).disabled = !deciders.some(isUnknown) && Boolean(isIdle(...deciders.map(value)));
  }
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "explainable_latents.idle_inputs",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("EL")) return;
    const deciders = new Set(Object.values(IDLE).flatMap(([names]) => names));
    const update = () => greyIdleInputs(node);
    for (const widget of node.widgets ?? []) {
      if (deciders.has(widget.name)) afterCall(widget, "callback", update);
    }
    for (const method of ["onAdded", "onConfigure", "onConnectionsChange"]) afterCall(node, method, update);
  },
});
