"""Saliency Overlay, Compare Images: maps as pictures, and how close a picture is to a reference."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.maps.colours import COLORMAPS
from .host.ui.comparison import compare_and_show
from .host.ui.heat_maps import SCALES, HeatMaps, raw_masks
from .host.ui.inspector import inspector
from .sockets import CATEGORY, Saliency


class ELSaliencyOverlay(io.ComfyNode):
    """Shows saliency as heat maps, alone or over a picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELSaliencyOverlay",
            display_name="Saliency Overlay",
            category=CATEGORY,
            description="Shows saliency as heat maps: one per word (and step) with a legend, alone or over a picture. "
            "Equal steps of value look equally far apart, also to colour-blind viewers.",
            search_aliases=["heat map", "heatmap", "attention map", "visualize attention", "daam"],
            is_output_node=True,
            inputs=[
                Saliency.Input("saliency", tooltip="The maps, from any node with a saliency output."),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture under the maps: the one decoded from the same latent. Its resolution may "
                    "differ, its proportions may not. Without it only the heat maps are shown.",
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
                    tooltip="Opacity of the heat map: 0 shows only the picture, 1 only the heat map.",
                ),
                io.Combo.Input(
                    "scale",
                    options=list(SCALES),
                    default=SCALES[0],
                    advanced=True,
                    tooltip="each map: every map uses all colours. shared: one colour scale for all maps, to compare "
                    "words and steps.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet",
                    tooltip="Up to 100 pictures on one sheet, with words and legends; of more steps it shows an even "
                    "selection, and says so. The legend is in multiples of the map's mean: 1 is no preference.",
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


class ELCompareImages(io.ComfyNode):
    """Measures PSNR and SSIM, and shows both pictures with a slider between them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELCompareImages",
            display_name="Compare Images",
            category=CATEGORY,
            description="Measures how close a picture is to a reference: PSNR and SSIM, over the whole picture or "
            "only where a mask is white. Shows both with a slider between them: before and after.",
            search_aliases=["psnr", "ssim", "metric", "similarity", "image difference", "quality", "before and after"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The picture to measure, or a batch of them."),
                io.Image.Input(
                    "reference",
                    tooltip="What it should look like: one picture for the whole batch, or one for each. It must have "
                    "the same size.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="Only where this is white (above 0.5) counts: connect Invert Mask to a subject's mask to "
                    "measure its surroundings. Without it the whole picture counts.",
                ),
                io.Image.Input(
                    "plain",
                    optional=True,
                    tooltip="A third picture of the same size to compare with, such as plain image-to-image of the "
                    "same reference with the same seed. It is measured the same way.",
                ),
            ],
            outputs=[
                io.Float.Output(
                    display_name="PSNR",
                    tooltip="Peak signal-to-noise ratio in dB, mean over the batch. Higher is closer: below 15 little "
                    "in common, above 30 hard to tell apart, infinite if identical.",
                ),
                io.Float.Output(
                    display_name="SSIM",
                    tooltip="Structural similarity, mean over the batch. 1 is identical, 0 is no common structure.",
                ),
                io.String.Output(
                    display_name="text",
                    tooltip="Both values as text, one line per picture; with plain connected, its values after them.",
                ),
            ],
        )

    @classmethod
    def execute(cls, image: Any, reference: Any, mask: Any = None, plain: Any = None) -> io.NodeOutput:
        """Measure, and show values and pictures on the node."""
        found, text, shown = compare_and_show(image, reference, mask, plain)
        shown = {**ui.PreviewText(text).as_dict(), **shown}
        return io.NodeOutput(found.mean_psnr, found.mean_ssim, text, ui=shown)


NODES = [ELSaliencyOverlay, ELCompareImages]
