"""Compare Images: how close a picture is to a reference."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.maps.measures import compare
from .host.ui.node_text import show_on_running_node


class ELCompareImages(io.ComfyNode):
    """Measures PSNR and SSIM."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELCompareImages",
            display_name="Compare Images",
            category="explainable latents",
            description="Measures how close a picture is to a reference: PSNR and SSIM, over the whole picture or "
            "only where a mask is white.",
            search_aliases=["psnr", "ssim", "metric", "similarity", "image difference", "quality"],
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
            ],
            outputs=[
                io.Float.Output(
                    display_name="PSNR",
                    tooltip="Peak signal-to-noise ratio in dB, mean over the batch. More is closer: below 15 little "
                    "in common, above 30 hard to tell apart, infinite when identical.",
                ),
                io.Float.Output(
                    display_name="SSIM",
                    tooltip="Structural similarity, mean over the batch. 1 is identical, 0 is no common structure.",
                ),
                io.String.Output(display_name="text", tooltip="The values in words, one line per picture."),
            ],
        )

    @classmethod
    def execute(cls, image: Any, reference: Any, mask: Any = None) -> io.NodeOutput:
        """Measure, and show the values on the node."""
        found = compare(image, reference, mask)
        show_on_running_node(found.text())
        return io.NodeOutput(found.mean_psnr, found.mean_ssim, found.text(), ui=ui.PreviewText(found.text()))
