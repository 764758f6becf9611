"""Gaussian Smooth, Dilate, Saliency to Mask: from maps to masks, outside of a sampler."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.maps.filters import OPERATIONS, apply_filter, gaussian_smooth
from .core.maps.masks import CHANNELS_TO_MASK, COMBINATIONS, Shaping, saliency_masks
from .core.maps.parts import EVERY
from .core.maps.thresholds import FLAT_MAPS
from .host.ui.heat_maps import picture_pixels
from .shaping_inputs import flat_map_input, parts_inputs, threshold_inputs
from .sockets import CATEGORY, Saliency

# In the place of a combination of words: none.
EACH = "each"


def _maps() -> tuple[io.MatchType.Input, io.MatchType.Template]:
    """The input for saliency or a MASK, and the template that gives the output its type."""
    template = io.MatchType.Template("maps", [Saliency, io.Mask])
    tooltip = "Saliency from any node, or any MASK. The output has the same type."
    return io.MatchType.Input("maps", template, tooltip=tooltip), template


class ELSmoothSaliency(io.ComfyNode):
    """Blurs saliency or a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        maps, template = _maps()
        return io.Schema(
            node_id="ELSmoothSaliency",
            display_name="Gaussian Smooth",
            category=CATEGORY,
            description="Smooths saliency before it becomes a mask, so that single bright spots do not fray the mask; "
            "or softens the edge of a MASK.",
            search_aliases=["gaussian blur", "blur mask", "feather", "soft mask", "smooth saliency"],
            inputs=[
                maps,
                io.Float.Input(
                    "sigma",
                    default=6.0,
                    min=0.0,
                    max=64.0,
                    step=0.1,
                    tooltip="Standard deviation in pixels of the maps: latent pixels (8 picture pixels each) for "
                    "saliency, picture pixels for a MASK. Higher is softer; 0 is off; the Abs-Grad-SAM code uses 6.",
                ),
                io.Int.Input(
                    "size",
                    default=3,
                    min=1,
                    max=255,
                    step=2,
                    tooltip="Width of the window in the same pixels, odd. It limits how far sigma reaches: 3 (the "
                    "Abs-Grad-SAM code) smooths only lightly, 6 times sigma covers the whole bell curve.",
                ),
            ],
            outputs=[io.MatchType.Output(template, display_name="maps", tooltip="The smoothed saliency or MASK.")],
        )

    @classmethod
    def execute(cls, maps: Any, sigma: float, size: int) -> io.NodeOutput:
        """Smooth every map."""
        return io.NodeOutput(apply_filter(maps, lambda values: gaussian_smooth(values, sigma, size)))


class ELDilateSaliency(io.ComfyNode):
    """Grows or shrinks the bright parts of saliency or a mask."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        maps, template = _maps()
        return io.Schema(
            node_id="ELDilateSaliency",
            display_name="Dilate",
            category=CATEGORY,
            description="Grows (or shrinks) the bright parts of saliency or of a MASK by a square. A mask of 0 and 1 "
            "stays a mask of 0 and 1.",
            search_aliases=["dilate", "erode", "grow mask", "shrink mask", "expand mask", "morphology"],
            inputs=[
                maps,
                io.Combo.Input(
                    "operation",
                    options=list(OPERATIONS),
                    default="dilate",
                    tooltip="dilate: every place takes the highest value of the square around it, so bright parts "
                    "grow. erode: the lowest, so bright parts shrink (but not at the picture's edge).",
                ),
                io.Int.Input(
                    "size",
                    default=3,
                    min=1,
                    max=255,
                    step=2,
                    tooltip="Width of the square, odd, in pixels of the maps: latent pixels (8 picture pixels each) "
                    "for saliency, picture pixels for a MASK. The Abs-Grad-SAM code uses 3.",
                ),
                io.Int.Input(
                    "iterations",
                    default=3,
                    min=0,
                    max=64,
                    tooltip="How many times. Each time, bright parts gain or lose half the square's width on every "
                    "side. 0 is off; the Abs-Grad-SAM code uses 3.",
                ),
            ],
            outputs=[
                io.MatchType.Output(template, display_name="maps", tooltip="The grown or shrunk saliency or MASK.")
            ],
        )

    @classmethod
    def execute(cls, maps: Any, operation: str, size: int, iterations: int) -> io.NodeOutput:
        """Grow or shrink every map."""
        return io.NodeOutput(apply_filter(maps, lambda values: OPERATIONS[operation](values, size, iterations)))


class ELSaliencyToMask(io.ComfyNode):
    """Turns saliency into a mask with a threshold."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELSaliencyToMask",
            display_name="Saliency to Mask",
            category=CATEGORY,
            description="Turns saliency into a MASK for any core node: what lies above a threshold is inside.",
            search_aliases=["threshold", "binarize", "otsu", "attention mask", "segment", "heat map to mask"],
            inputs=[
                Saliency.Input("saliency", tooltip="The maps, from any node with a saliency output."),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="Which maps to use: the words that Saliency Overlay shows above them, separated by commas "
                    "(dog, cat). Empty: all.",
                ),
                *threshold_inputs(Shaping(value=0.2)),
                io.Combo.Input(
                    "combine",
                    options=[*COMBINATIONS, EACH],
                    default="union",
                    tooltip="Several words (or steps): sum adds their maps before the threshold, union and "
                    "intersection join their masks, each makes one mask per word: first those of all latents for the "
                    "first word, then for the next.",
                ),
                io.Boolean.Input("invert", default=False, tooltip="Exchange inside and outside."),
                io.Combo.Input(
                    "channels",
                    options=list(CHANNELS_TO_MASK),
                    default=CHANNELS_TO_MASK[0],
                    tooltip="Only for Abs-Grad-SAM, which has a map per latent channel. together: one threshold for "
                    "their mean. each (as in the paper's code): a threshold for every channel. whole: one threshold "
                    "for all channels. With each and whole the mask is the share of channels that are inside.",
                    advanced=True,
                ),
                flat_map_input(),
                *parts_inputs(),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="mask",
                    tooltip="In picture pixels (8 per latent pixel); 1 is inside. One mask per latent; with combine = "
                    "each, one per word and latent.",
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        saliency: Any,
        words: str,
        rule: str,
        value: float,
        combine: str,
        invert: bool,
        channels: str,
        flat_map: str = FLAT_MAPS[0],
        parts: str = EVERY,
        part_count: int = 1,
        points: str = "",
        fill_holes: bool = False,
    ) -> io.NodeOutput:
        """Apply the threshold to the maps of the words."""
        after = {"parts": parts, "part_count": part_count, "points": points, "fill_holes": fill_holes}
        combination = "union" if combine == EACH else combine
        shaping = Shaping(rule, value, combination, invert, flat_map=flat_map, **after)
        masks = saliency_masks(saliency.of_words(words), shaping, channels, separate=combine == EACH)
        return io.NodeOutput(picture_pixels(masks, saliency.spatial_scale))


NODES = [ELSmoothSaliency, ELDilateSaliency, ELSaliencyToMask]
