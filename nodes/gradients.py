"""Abs-Grad-SAM Saliency: which parts of the prediction depend on the attention to the prompt's words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.attention.refine import AUTO
from .core.gradients.definition import DEFINITIONS, POLARITIES, SOLVERS
from .core.maps.colours import COLORMAPS
from .host.one_call import gradient_saliency
from .host.ui.heat_maps import SCALES, HeatMaps
from .inputs import refine_inputs, region_input, seed_input
from .sockets import CATEGORY, Saliency, Subjects


class ELGradientSaliency(io.ComfyNode):
    """Measures how much each part of the prediction for a picture depends on the attention to each word."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELGradientSaliency",
            display_name="Abs-Grad-SAM Saliency",
            category=CATEGORY,
            description="Which parts of this picture would change if the model looked at these words differently? The "
            "exact gradient of the prediction with respect to the attention to the words, in the time of about one "
            "model call. Nothing is sampled.",
            search_aliases=["gradient", "grad-cam", "grad-sam", "explain", "saliency", "heat map", "attribution"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="SD 1.x, SD 2.x, SDXL or a transformer that the help page lists, with its patches."
                ),
                io.Conditioning.Input("positive", tooltip="The prompt that describes the picture, encoded."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode; a batch gives maps for each."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                io.Float.Input(
                    "noise_level",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise is added to the picture, from none (0) to pure noise (1). The paper's code "
                    "replaces the latent between 0.8 and 0.3.",
                ),
                seed_input("Seed of that noise."),
                io.Combo.Input(
                    "polarity",
                    options=list(POLARITIES),
                    default=POLARITIES[0],
                    tooltip="absolute: what a word adds and what it takes away both count (Abs-Grad-SAM). positive: "
                    "only what it adds (Grad-SAM).",
                ),
                io.Combo.Input(
                    "definition",
                    options=list(DEFINITIONS),
                    default=DEFINITIONS[0],
                    advanced=True,
                    tooltip="Abs-Grad-SAM (the paper's): how much each latent element depends on the attention of one "
                    "layer. aggregated: where attention matters to the prediction as a whole, in all layers at once; a "
                    "different measure, which needs one backward pass through the whole model (not for transformers).",
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default=SOLVERS[0],
                    advanced=True,
                    tooltip="Both give the same numbers. structured: fast, for SD 1.x, SD 2.x and transformers. exact: "
                    "one backward pass per latent element, for every model and layer; slow (the node shows how long it "
                    "will take). aggregated uses neither.",
                ),
                io.String.Input(
                    "layer",
                    default="last",
                    advanced=True,
                    tooltip="The cross-attention layer whose attention the gradient is taken with respect to: last (as "
                    "in the paper's code) or a name (output.5.0); several, separated by commas, give a map each. "
                    "Layers other than last, and SDXL's last, need the solver exact; transformers have only last. "
                    "aggregated uses all layers.",
                ),
                region_input(),
                *refine_inputs(),
            ],
            outputs=[
                Saliency.Output(
                    display_name="saliency",
                    tooltip="One map per word and latent, for each latent channel (aggregated: one for all).",
                ),
                io.Image.Output(
                    display_name="preview", tooltip="The maps as heat maps with legends, averaged over the channels."
                ),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent: Any,
        subjects: Any,
        noise_level: float,
        seed: int,
        polarity: str,
        definition: str,
        solver: str,
        layer: str,
        region: Any = None,
        refine: int = 0,
        refine_layers: str = AUTO,
    ) -> io.NodeOutput:
        """Call the model once and take gradients."""
        picture = model, positive, latent, subjects, noise_level, seed
        how = polarity, solver, definition, layer, region, refine, refine_layers
        found = gradient_saliency(*picture, *how)
        page = HeatMaps(found, None, COLORMAPS[0], 1.0, SCALES[0]).sheet()
        return io.NodeOutput(found, page, ui=ui.PreviewImage(page, cls=cls))


NODES = [ELGradientSaliency]
