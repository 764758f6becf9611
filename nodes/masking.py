"""Mask from Attention, Mask from Image: where to act while a model samples."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.masking import AttentionMasking, ImageMasking
from .core.masks import COMBINATIONS, RULES, Shaping
from .sockets import Masking, Subjects

CATEGORY = "explainable latents"


class ELMaskFromAttention(io.ComfyNode):
    """Describes a mask that is read from the prompt's own attention while a sampler runs."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskFromAttention",
            display_name="Mask from Attention",
            category=CATEGORY,
            description="At each manipulated step the mask is where the model's cross-attention looks at the chosen "
            "words. Nothing is "
            "computed here: the sampler that receives this finds the mask while it runs.",
            search_aliases=["attention mask", "dynamic mask", "prompt mask", "cross attention", "aggregated attention"],
            inputs=[
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                io.Combo.Input(
                    "role",
                    options=["subject", "scene", "all"],
                    default="subject",
                    tooltip="Which of the words count: the subjects, the scene, or all of them.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default="mean",
                    tooltip="What counts as looked at. mean: more than the map's mean (aggregated attention). "
                    "log-mean: more than the "
                    "geometric mean times e^value (scene-based). mean + k·std: k is value (Abs-Grad-SAM). quantile: "
                    "the share of the latent, "
                    "from 0 to 1, that stays out. otsu: the level that parts the map best.",
                ),
                io.Float.Input(
                    "value",
                    default=0.2,
                    min=-10.0,
                    max=10.0,
                    step=0.01,
                    tooltip="λ of log-mean (published: 0.2), k of mean + k·std (published: 0.5) or the quantile. A "
                    "larger value makes a smaller "
                    "mask. mean and otsu do not use it.",
                ),
                io.Combo.Input(
                    "combine",
                    options=list(COMBINATIONS),
                    default="sum",
                    tooltip="Several words: sum adds their maps before the threshold (published), union and "
                    "intersection join their masks.",
                    advanced=True,
                ),
                io.Boolean.Input("invert", default=False, tooltip="Exchange inside and outside.", advanced=True),
                io.Float.Input(
                    "smooth_sigma",
                    default=0.0,
                    min=0.0,
                    max=64.0,
                    step=0.1,
                    tooltip="Gaussian smoothing of the map before the threshold: standard deviation in latent pixels "
                    "(8 picture pixels each). "
                    "0 is off; the paper uses 6.",
                    advanced=True,
                ),
                io.Int.Input(
                    "smooth_size",
                    default=3,
                    min=1,
                    max=63,
                    step=2,
                    tooltip="Width of the smoothing window in latent pixels, odd. The paper uses 3.",
                    advanced=True,
                ),
                io.Int.Input(
                    "dilate_size",
                    default=3,
                    min=1,
                    max=63,
                    step=2,
                    tooltip="Width of the square that dilation grows bright parts by, in latent pixels, odd. The "
                    "paper uses 3.",
                    advanced=True,
                ),
                io.Int.Input(
                    "dilate_iterations",
                    default=0,
                    min=0,
                    max=64,
                    tooltip="How often to dilate. 0 is off; the paper uses 3. More makes a larger mask.",
                    advanced=True,
                ),
                io.String.Input(
                    "layers",
                    default="all",
                    tooltip="Cross-attention layers that count: all, last, grids (16x16, height x width) or names "
                    "(output.5), separated by commas.",
                    advanced=True,
                ),
            ],
            outputs=[
                Masking.Output(display_name="masking", tooltip="How to find the mask; for KSampler (Masked Latent).")
            ],
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
    ) -> io.NodeOutput:
        """Bundle the description."""
        shaping = Shaping(rule, value, combine, invert, smooth_sigma, smooth_size, dilate_size, dilate_iterations)
        return io.NodeOutput(AttentionMasking(subjects.with_role(role), shaping, layers))


class ELMaskFromImage(io.ComfyNode):
    """Uses an ordinary MASK where a masking is expected."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskFromImage",
            display_name="Mask from Image",
            category=CATEGORY,
            description="Uses a given mask at every manipulated step, whatever the model looks at. Works with every "
            "model.",
            search_aliases=["fixed mask", "static mask", "inpaint mask"],
            inputs=[
                io.Mask.Input(
                    "mask",
                    tooltip="1 is inside, 0 outside, values between mix. Any resolution: it is brought to the "
                    "latent's size by averaging.",
                )
            ],
            outputs=[Masking.Output(display_name="masking", tooltip="The mask; for KSampler (Masked Latent).")],
        )

    @classmethod
    def execute(cls, mask: Any) -> io.NodeOutput:
        """Bundle the mask."""
        return io.NodeOutput(ImageMasking(mask))
