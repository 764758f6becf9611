/**
 * A chooser of presets on the nodes that describe masks, on those that replace the latent, and on editors. It only
 * writes the node's other inputs: they alone decide what is run and are all that is saved, so a run without this
 * file gives the same.
 */

import { app } from "../../scripts/app.js";
import { afterCall, asOneStep } from "./panel.js";
import { translated } from "./texts.js";

const KEY = "el_preset"; // of the node's saved properties: which of several presets with the same values was chosen
const [EXPERIMENT_1, EXPERIMENT_2] = ["Devaney experiment 1", "Devaney experiment 2"];
const ABS_GRAD_SAM = "Abs-Grad-SAM paper";
const PAPER = "as published";
const NONE = "own values";

const unfiltered = { smooth_sigma: 0, dilate_iterations: 0, refine: 0, parts: "all", fill_holes: false };
const asPublished = { invert: false, flat_map: "error", smooth_and_dilate: "before the threshold" };
// For the same maps tight lies inside normal, and normal inside loose.
const ofAttention = {
  tight: { rule: "mean + k·std", value: 0.5 },
  normal: { rule: "mean" },
  loose: { rule: "mean × factor", value: 0.8 },
};
const filtered = { ...unfiltered, smooth_sigma: 6, smooth_size: 3, dilate_size: 3, dilate_iterations: 3 };
const ofGradients = (k) => ({ rule: "mean + k·std", value: k, ...filtered });
// The more often the surroundings are put back, the closer they stay to the reference.
const keptAt = (steps) => ({ manipulate_at: steps, inside: "keep", outside: "reference" });
const kept = {
  tight: keptAt("15%, 35%, 50%, 65%, 80%, 95%"),
  normal: keptAt("15%, 50%, 80%"),
  loose: keptAt("15%, 50%"),
};
const modulated = {
  cross_strength: 1,
  self_strength: 0.3,
  end: 0.3,
  elsewhere: "flattened",
  phrases_alone: true,
  size_regularisation: 1,
};
const placed = {
  strength: 1,
  steps: "0-20%",
  loss: "box share",
  unit: "variance",
  step_size: 30,
  schedule: "constant",
  repeats: "5",
  until: 0.2,
  stop_for_good: true,
  refinement: "",
  inside_weight: 1,
  outside_weight: 1,
  edge_weight: 1,
  layers: "auto",
};
const moved = {
  strength: 1,
  steps: "0-50%",
  unit: "relative",
  step_size: 0.05,
  schedule: "constant",
  repeats: "3",
  until: 0,
  layers: "auto",
  keep_appearance: 0,
};
const published = keptAt("5, 18, 28");
const cached = { manipulate_at: "2, 4", inside: "keep", outside: "cached reference", outside_timestep: 80 };
const replacedUntil = (cross, self) => ({ cross_start: 0, cross_end: cross, self_start: 0, self_end: self });
const sampler = { steps: 35, cfg: 8, sampler_name: "ddpm", scheduler: "ddim_uniform", denoise: 0.7 };

// Node -> name -> the inputs that a preset decides. The published values are those of workflows 02 to 04.
const PRESETS = {
  ELMaskFromAttention: {
    ...Object.fromEntries(Object.entries(ofAttention).map(([name, rule]) => [name, { ...unfiltered, ...rule }])),
    [EXPERIMENT_1]: {
      ...unfiltered,
      ...asPublished,
      role: "subject",
      rule: "mean",
      combine: "sum",
      layers: "all",
      over_steps: "last call",
    },
    [EXPERIMENT_2]: {
      ...unfiltered,
      ...asPublished,
      role: "scene",
      rule: "log-mean",
      value: 0.2,
      combine: "sum",
      layers: "all",
      over_steps: "last call",
    },
  },
  ELMaskFromGradient: {
    tight: ofGradients(1),
    normal: ofGradients(0.5),
    loose: ofGradients(0),
    [ABS_GRAD_SAM]: {
      ...ofGradients(0.5),
      ...asPublished,
      role: "subject",
      combine: "union",
      channels: "each",
      polarity: "absolute",
      layer: "last",
    },
  },
  ELSaliencyToMask: ofAttention,
  ELMaskedLatentKSampler: {
    ...kept,
    [EXPERIMENT_1]: { ...sampler, ...published },
    [EXPERIMENT_2]: { ...sampler, ...cached },
    [ABS_GRAD_SAM]: { ...sampler, ...published, steps: 45, denoise: 0.9 },
  },
  ELMaskedLatentModel: {
    ...kept,
    [EXPERIMENT_1]: published,
    [EXPERIMENT_2]: cached,
    [ABS_GRAD_SAM]: published,
  },
  ELPromptToPrompt: {
    "exchange a word": replacedUntil(0.8, 0.4),
    "add words": replacedUntil(0.5, 0.2),
    "real picture": replacedUntil(0.4, 0.6),
  },
  ELMutualSelfAttention: { [PAPER]: { start: 0.08, end: 1, layers: "auto" } },
  ELPlugAndPlay: {
    [PAPER]: { attention_end: 0.5, feature_end: 0.8, layers: "auto", feature_block: "auto" },
  },
  ELKeepWords: {
    [PAPER]: {
      strength: 1,
      steps: "0-50%",
      unit: "latent",
      step_size: 20,
      schedule: "falling",
      refinement: "0: 0.05, 10: 0.5, 20: 0.8",
      tokens: "last token",
      compared_with: "auto",
      layers: "auto",
    },
    gentle: {
      strength: 1,
      steps: "0-50%",
      unit: "relative",
      step_size: 0.03,
      schedule: "constant",
      refinement: "",
      tokens: "mean of tokens",
      compared_with: "auto",
      layers: "auto",
    },
  },
  ELPlaceWords: {
    "layout guidance": placed,
    "LLM-grounded Diffusion": {
      ...placed,
      steps: "0-60%",
      loss: "top values",
      unit: "ddim",
      step_size: 5,
      repeats: "0: 4, 5: 3, 10: 2, 20: 1",
      until: 5,
      outside_weight: 4,
    },
    BoxDiff: {
      ...placed,
      steps: "0-50%",
      loss: "BoxDiff",
      unit: "latent",
      step_size: 20,
      schedule: "falling",
      repeats: "1",
      until: 0,
      stop_for_good: false,
      refinement: "0: 0.05, 10: 0.5, 20: 0.8",
    },
    gentle: { ...placed, steps: "0-50%", unit: "relative", step_size: 0.03, repeats: "1", stop_for_good: false },
  },
  ELGuideShape: {
    normal: moved,
    gentle: { ...moved, step_size: 0.03, repeats: "1" },
    "keep the look": { ...moved, keep_appearance: 0.5 },
  },
  ELDenseDiffusionModel: {
    [PAPER]: modulated,
    "as published for SDXL": { ...modulated, phrases_alone: false },
    "some things placed": { ...modulated, elsewhere: "as it is" },
  },
  ELRegionalAttentionModel: { "Attention Couple": { base_share: 0 }, "Regional Prompter": { base_share: 0.2 } },
  ELCrossImageAttention: {
    [PAPER]: {
      start: 0.15,
      contrast: 1.67,
      guidance: 3.5,
      statistics_start: 0.3,
      end: 1,
      coarse_end: 1,
      structure_every: 5,
      structure_end: 0.59,
      layers: "auto",
    },
  },
  ELEyeForAnEye: {
    [PAPER]: {
      start: 0.15,
      guidance: 1,
      statistics_start: 0.74,
      end: 1,
      structure_every: 5,
      structure_end: 0.59,
      layers: "auto",
    },
  },
};

class Presets {
  constructor(node, presets) {
    this.node = node;
    this.presets = presets;
    const names = [...Object.keys(presets), NONE];
    this.names = new Map(names.map((name) => [translated(name), name]));
    const options = { values: [...this.names.keys()], serialize: false };
    const choose = (shown) => this.choose(this.names.get(shown));
    this.widget = node.addWidget("combo", "preset", translated(NONE), choose, options);
    this.widget.serialize = false; // saved workflows store values by position
    this.widget.label = translated("preset");
    this.widget.tooltip = translated("Writes the values of a preset into the node's inputs; only these are run and saved.");
    const show = () => this.show();
    const decided = new Set(Object.values(presets).flatMap(Object.keys));
    for (const widget of node.widgets) {
      if (decided.has(widget.name)) afterCall(widget, "callback", show);
    }
    for (const method of ["onAdded", "onConfigure", "onConnectionsChange"]) afterCall(node, method, show);
    this.show();
  }

  isLinked(input) {
    return this.node.inputs?.some((each) => each.name === input && each.link != null);
  }

  /** Whether the node's inputs have the values of a preset; an input that another node gives has no value here. */
  isShown(name) {
    return Object.entries(this.presets[name]).every(([input, value]) => {
      return !this.isLinked(input) && this.node.widgets.find((widget) => widget.name === input)?.value === value;
    });
  }

  /** Name the preset whose values the inputs have. */
  show() {
    if (this.isChoosing) return;
    const having = Object.keys(this.presets).filter((name) => this.isShown(name));
    const chosen = this.node.properties[KEY];
    this.widget.value = translated(having.includes(chosen) ? chosen : (having[0] ?? NONE));
    this.node.setDirtyCanvas(true, true);
  }

  choose(name) {
    asOneStep(() => {
      this.isChoosing = true;
      try {
        this.write(name);
      } finally {
        this.isChoosing = false;
        this.show();
      }
    });
  }

  /** Write the values of a preset, but for the inputs that another node gives. */
  write(name) {
    if (name !== NONE) this.node.properties[KEY] = name;
    for (const [input, value] of Object.entries(this.presets[name] ?? {})) {
      if (this.isLinked(input)) continue;
      const widget = this.node.widgets.find((each) => each.name === input);
      widget.value = value;
      widget.callback?.(value, app.canvas, this.node);
    }
  }
}

app.registerExtension({
  name: "explainable_latents.presets",
  nodeCreated(node) {
    const presets = PRESETS[node.comfyClass];
    if (presets) new Presets(node, presets);
  },
});
