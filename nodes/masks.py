"""Mask from Attention, Mask from Abs-Grad-SAM, Mask from Image: where the latent is replaced while a model samples."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.attention.refine import AUTO
from .core.gradients.definition import POLARITIES, SOLVERS
from .core.maps.masks import FILTER_ORDERS, Shaping
from .core.maps.parts import EVERY
from .core.maps.thresholds import FLAT_MAPS
from .core.methods.masking import CALLS, CHANNELS, AttentionMasking, GradientMasking, ImageMasking
from .inputs import prompt_input, refine_inputs
from .shaping_inputs import flat_map_input, order_input, parts_inputs, shaping_inputs
from .sockets import CATEGORY, Masking, Subjects

_USED_BY = "{}; for KSampler (Masked Latent) or Masked Latent (model patch)."

# The settings of the Abs-Grad-SAM paper and its code.
PAPER_SHAPING = Shaping("mean + k·std", 0.5, "union", smooth_sigma=6.0, dilate_iterations=3)


class ELMaskFromAttention(io.ComfyNode):
    """Describes a mask that a sampler finds in the attention to the prompt's words while it runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskFromAttention",
            display_name="Mask from Attention",
            category=CATEGORY,
            description="At each manipulated step (one at which the latent is replaced) the mask is where the model's "
            "cross-attention looks at the chosen words. Nothing is computed here, and there is no MASK output: the "
            "sampler that receives this finds the mask while it runs. For a MASK use Saliency to Mask.",
            search_aliases=["attention mask", "dynamic mask", "prompt mask", "cross attention", "aggregated attention"],
            inputs=[
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                *shaping_inputs(Shaping(value=0.2)),
                io.String.Input(
                    "layers",
                    default=AUTO,
                    tooltip="The layers to read words from: auto (all cross-attention as in the paper; of joint "
                    "attention the later half of the first kind of blocks), all, last, grids (16x16, height x width), "
                    "names (output.5, double.3) or ranges (double.8-18), separated by commas.",
                    advanced=True,
                ),
                prompt_input(),
                io.Combo.Input(
                    "over_steps",
                    options=list(CALLS),
                    default=CALLS[0],
                    optional=True,
                    advanced=True,
                    tooltip="last call: the maps of the model call before the manipulated step. cumulative: the maps "
                    "of all calls from the first step to the manipulated one, added up; steadier, but slower to follow "
                    "changes of the picture.",
                ),
                order_input(),
                flat_map_input(),
                *refine_inputs(),
                *parts_inputs(),
            ],
            outputs=[Masking.Output(display_name="masking", tooltip=_USED_BY.format("How to find the mask"))],
        )

    @classmethod
    def execute(
        cls,
        subjects: Any,
        role: str,
        rule: str,
        value: float,
        combine: str,
        invert: bool,
        smooth_sigma: float,
        smooth_size: int,
        dilate_size: int,
        dilate_iterations: int,
        layers: str,
        positive: Any = None,
        over_steps: str = CALLS[0],
        smooth_and_dilate: str = FILTER_ORDERS[0],
        flat_map: str = FLAT_MAPS[0],
        refine: int = 0,
        refine_layers: str = AUTO,
        parts: str = EVERY,
        part_count: int = 1,
        points: str = "",
        fill_holes: bool = False,
    ) -> io.NodeOutput:
        """Bundle the description."""
        filters = smooth_sigma, smooth_size, dilate_size, dilate_iterations, False, smooth_and_dilate
        shaping = Shaping(rule, value, combine, invert, *filters, flat_map, parts, part_count, points, fill_holes)
        how = layers, positive, over_steps, refine, refine_layers
        return io.NodeOutput(AttentionMasking(subjects.with_role(role), shaping, *how))


class ELMaskFromGradient(io.ComfyNode):
    """Describes a mask that a sampler finds with Abs-Grad-SAM while it runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskFromGradient",
            display_name="Mask from Abs-Grad-SAM",
            category=CATEGORY,
            description="At each manipulated step (one at which the latent is replaced) the mask is the part of the "
            "prediction that depends on the model's attention to the chosen words. This costs one more model call and "
            "its gradients per manipulated step. There is no MASK output: the sampler that receives this finds "
            "the mask while it runs.",
            search_aliases=["gradient mask", "grad-cam", "grad-sam", "dynamic mask", "prompt mask"],
            inputs=[
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                *shaping_inputs(PAPER_SHAPING),
                io.Combo.Input(
                    "channels",
                    options=list(CHANNELS),
                    default=CHANNELS[0],
                    tooltip="each: every latent channel has a mask of its own (as in the paper's code). together: one "
                    "mask for all, from the mean of their maps.",
                    advanced=True,
                ),
                io.Combo.Input(
                    "polarity",
                    options=list(POLARITIES),
                    default=POLARITIES[0],
                    tooltip="absolute: what a word adds and what it takes away both count (Abs-Grad-SAM). positive: "
                    "only what it adds (Grad-SAM).",
                    advanced=True,
                ),
                io.Combo.Input(
                    "solver",
                    options=list(SOLVERS),
                    default=SOLVERS[0],
                    tooltip="Both give the same numbers. structured: fast, for SD 1.x, SD 2.x and transformers. exact: "
                    "one backward pass per latent element and manipulated step, for every model and layer; very slow.",
                    advanced=True,
                ),
                io.String.Input(
                    "layer",
                    default="last",
                    tooltip="The cross-attention layer whose attention the gradient is taken with respect to: last (as "
                    "in the paper's code) or a name (output.5.0); of several, separated by commas, the masks are "
                    "intersected. Layers other than last, and SDXL's last, need the solver exact; transformers have "
                    "only last.",
                    advanced=True,
                ),
                prompt_input(),
                order_input(),
                flat_map_input(),
                *refine_inputs(),
                *parts_inputs(),
            ],
            outputs=[Masking.Output(display_name="masking", tooltip=_USED_BY.format("How to find the mask"))],
        )

    @classmethod
    def execute(
        cls,
        subjects: Any,
        role: str,
        rule: str,
        value: float,
        combine: str,
        invert: bool,
        smooth_sigma: float,
        smooth_size: int,
        dilate_size: int,
        dilate_iterations: int,
        channels: str,
        polarity: str,
        solver: str,
        layer: str,
        positive: Any = None,
        smooth_and_dilate: str = FILTER_ORDERS[0],
        flat_map: str = FLAT_MAPS[0],
        refine: int = 0,
        refine_layers: str = AUTO,
        parts: str = EVERY,
        part_count: int = 1,
        points: str = "",
        fill_holes: bool = False,
    ) -> io.NodeOutput:
        """Bundle the description."""
        filters = smooth_sigma, smooth_size, dilate_size, dilate_iterations, False, smooth_and_dilate
        shaping = Shaping(rule, value, combine, invert, *filters, flat_map, parts, part_count, points, fill_holes)
        how = channels, polarity, solver, layer, positive, refine, refine_layers
        return io.NodeOutput(GradientMasking(subjects.with_role(role), shaping, *how))


class ELMaskFromImage(io.ComfyNode):
    """Uses an ordinary MASK as the mask of every manipulated step."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskFromImage",
            display_name="Mask from Image",
            category=CATEGORY,
            description="Uses a given mask at every manipulated step (one at which the latent is replaced), wherever "
            "the model looks. Works with every model. The output is no MASK, but what a sampler of this pack needs.",
            search_aliases=["fixed mask", "static mask", "inpaint mask"],
            inputs=[
                io.Mask.Input(
                    "mask",
                    tooltip="1 is inside, 0 outside; values between mix both sides. Any resolution: it is averaged "
                    "down to the latent's size.",
                )
            ],
            outputs=[Masking.Output(display_name="masking", tooltip=_USED_BY.format("The mask"))],
        )

    @classmethod
    def execute(cls, mask: Any) -> io.NodeOutput:
        """Bundle the mask."""
        return io.NodeOutput(ImageMasking(mask))


NODES = [ELMaskFromAttention, ELMaskFromGradient, ELMaskFromImage]
