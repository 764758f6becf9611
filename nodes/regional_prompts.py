"""Regional Attention: prompts of their own for parts of a picture, by masks, areas, ratios or a word of the prompt."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .host.editing.regional_attention import install_regions
from .sockets import CATEGORY, Masking


class ELRegionalAttentionModel(io.ComfyNode):
    """Makes every sampler that runs the model give parts of the picture prompts of their own."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELRegionalAttentionModel",
            display_name="Regional Attention (model patch)",
            category=CATEGORY,
            description="For any sampler node: parts of the picture look at prompts of their own, and where none is, "
            "at the sampler's. Parts are masks, areas, ratios, or where the picture looks at a word. One model call "
            "for all, so the parts become one picture. SD 1.x, SD 2.x and SDXL.",
            search_aliases=["regional prompt", "attention couple", "region", "area", "mask prompt", "ratio", "patch"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.Conditioning.Input(
                    "regions",
                    tooltip="The regions' prompts, joined by Conditioning (Combine). Conditioning (Set Mask) or (Set "
                    "Area) says where each is; those with neither are placed by ratios or by masking.",
                ),
                io.String.Input(
                    "ratios",
                    default="",
                    tooltip="Places the prompts without mask or area. 1,1: left and right half. 1,2: the right one "
                    "twice as wide. 1;1: upper and lower half. 1,1,1;2: a row with two columns, below it a row twice "
                    "as high (the first number of each row is its height).",
                ),
                io.Float.Input(
                    "base_share",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How much the sampler's prompt counts inside the regions, too (Regional Prompter: 0.2). "
                    "More makes the parts fit together better; 1 is off.",
                ),
                Masking.Input(
                    "masking",
                    optional=True,
                    tooltip="Region by prompt: places the one prompt without mask or area. From Mask from Attention, "
                    "with a word of the sampler's prompt: the region is where the picture looks at it, from the second "
                    "model call on. Or Mask from Image.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler, KSampler (Advanced), SamplerCustom or a guider, with any sampler. The "
                    "positive prompt there is the base prompt.",
                )
            ],
        )

    @classmethod
    def execute(cls, model: Any, regions: Any, ratios: str, base_share: float, masking: Any = None) -> io.NodeOutput:
        """Install the regions on a clone of the model."""
        patched = model.clone()
        install_regions(patched, regions, ratios, base_share, masking)
        return io.NodeOutput(patched)


NODES = [ELRegionalAttentionModel]
