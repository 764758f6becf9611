"""Attention Saliency, Saliency Overlay: what a capture saw, as maps and as pictures."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.maps.colours import COLORMAPS
from .core.maps.saliency import OVER_STEPS
from .host.ui.heat_maps import SCALES, HeatMaps, raw_masks
from .host.ui.inspector import inspector
from .sockets import Attention, Saliency

CATEGORY = "explainable latents"


class ELAttentionSaliency(io.ComfyNode):
    """Turns what Capture Attention saw into saliency maps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELAttentionSaliency",
            display_name="Attention Saliency",
            category=CATEGORY,
            description="The maps that Capture Attention gathered while a sampler ran: attention of each word, "
            "summed over heads and layers, normalised to sum 1.",
            search_aliases=["attention map", "cross attention", "aggregate attention", "heat map", "daam"],
            inputs=[
                Attention.Input("attention", tooltip="From Capture Attention."),
                io.Latent.Input(
                    "samples",
                    tooltip="The latent that the sampler made with the captured model. It makes this node wait for "
                    "the sampler, and tells which sampler is meant when several used that model.",
                ),
                io.Combo.Input(
                    "role",
                    options=["all", "subject", "scene"],
                    default="all",
                    tooltip="Which of the words: all of them, the subjects, or the scene.",
                ),
                io.Combo.Input(
                    "over_steps",
                    options=list(OVER_STEPS),
                    default=OVER_STEPS[0],
                    tooltip="mean: every captured step counts alike. last: the last captured step. each: one map per "
                    "step. sum: a step counts as much as attention goes to the word in it, as in DAAM.",
                ),
                io.Boolean.Input(
                    "each_layer",
                    default=False,
                    advanced=True,
                    tooltip="For inspection: one map per cross-attention layer, summed over the steps, instead of "
                    "their sum. over_steps does not matter then.",
                ),
            ],
            outputs=[
                Saliency.Output(display_name="saliency", tooltip="One map per word (and step, or layer) and latent.")
            ],
        )

    @classmethod
    def execute(cls, attention: Any, samples: Any, role: str, over_steps: str, each_layer: bool) -> io.NodeOutput:
        """Read the run that made this latent."""
        return io.NodeOutput(attention.saliency(samples["samples"], role, over_steps, each_layer))


class ELSaliencyOverlay(io.ComfyNode):
    """Shows saliency as heat maps, alone or over a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELSaliencyOverlay",
            display_name="Saliency Overlay",
            category=CATEGORY,
            description="Shows where each word counts: one heat map per word (and step) with a legend, alone or over "
            "a picture. The colours are evenly spaced to the eye and safe for colour-blind viewers.",
            search_aliases=["heat map", "heatmap", "attention map", "visualize attention", "daam"],
            is_output_node=True,
            inputs=[
                Saliency.Input("saliency", tooltip="The maps, from any node that gives saliency."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture under the maps: the one decoded from the same latent, in any resolution of "
                    "the same proportions. Without it the heat maps stand alone.",
                ),
                io.Combo.Input(
                    "colormap",
                    options=list(COLORMAPS),
                    default=COLORMAPS[0],
                    tooltip="Low to high. fire: violet, red, yellow. sea: violet, blue, green. grey: black to white.",
                ),
                io.Float.Input(
                    "opacity",
                    default=0.6,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    display_mode=io.NumberDisplay.slider,
                    tooltip="How much of the heat covers the picture: 0 the picture alone, 1 the heat alone.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default=SCALES[0],
                    advanced=True,
                    tooltip="each map: every map uses all colours. shared: one scale for all, to compare words and "
                    "steps.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet",
                    tooltip="Up to 100 pictures on one sheet with words and legends; more steps are thinned out, which "
                    "the sheet says. The legend counts in multiples of the map's mean: 1 is no preference.",
                ),
                io.Image.Output(
                    display_name="overlays",
                    tooltip="The pictures alone, one per word (and step) and latent of the batch.",
                ),
                io.Mask.Output(
                    display_name="maps",
                    tooltip="The raw maps on the latent grid, each divided by its maximum, in the same order; for "
                    "core mask nodes.",
                ),
            ],
        )

    @classmethod
    def execute(cls, saliency: Any, colormap: str, opacity: float, scale: str, image: Any = None) -> io.NodeOutput:
        """Draw the pictures, show the sheet on the node and leave the maps for its inspector."""
        heat = HeatMaps(saliency, image, colormap, opacity, scale)
        page = heat.sheet()
        shown = {**ui.PreviewImage(page, cls=cls).as_dict(), **inspector(saliency, image, colormap, scale)}
        return io.NodeOutput(page, heat.overlays(), raw_masks(saliency), ui=shown)
