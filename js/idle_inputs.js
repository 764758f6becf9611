/** Greys the inputs that do nothing with the choices that are made on the node. Their values stay as they are. */

import { app } from "../../scripts/app.js";
import { afterCall } from "./panel.js";

const isCached = (policy) => policy === "cached reference";

// Input -> the input that decides, and the values of that one with which it does nothing.
const IDLE = {
  value: ["rule", (rule) => rule === "mean" || rule === "otsu"],
  inside_timestep: ["inside", (policy) => !isCached(policy)],
  outside_timestep: ["outside", (policy) => !isCached(policy)],
  smooth_size: ["smooth_sigma", (sigma) => sigma === 0],
  dilate_size: ["dilate_iterations", (times) => times === 0],
  refine_layers: ["refine", (times) => times === 0],
  part_count: ["parts", (kept) => kept !== "largest"],
  points: ["parts", (kept) => kept !== "touching points"],
  reading: ["look_for", (words) => !words.trim()],
};

function greyIdleInputs(node) {
  const widget = (name) => node.widgets?.find((each) => each.name === name);
  const isLinked = (name) => node.inputs?.some((input) => input.name === name && input.link != null);
  for (const [name, [decider, isIdle]] of Object.entries(IDLE)) {
    const [input, choice] = [widget(name), widget(decider)];
    if (input && choice) input.disabled = !isLinked(decider) && isIdle(choice.value);
  }
  node.setDirtyCanvas(true, true);
}

app.registerExtension({
  name: "explainable_latents.idle_inputs",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("EL")) return;
    const deciders = new Set(Object.values(IDLE).map(([decider]) => decider));
    const update = () => greyIdleInputs(node);
    for (const widget of node.widgets ?? []) {
      if (deciders.has(widget.name)) afterCall(widget, "callback", update);
    }
    for (const method of ["onAdded", "onConfigure", "onConnectionsChange"]) afterCall(node, method, update);
  },
});
