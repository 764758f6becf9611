"""Guidance Report: the losses of a guided run over its steps, drawn beside the last maps and their boxes."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.sampling.guidance_sheet import guidance_outputs
from .sockets import CATEGORY, Report


class ELGuidanceReport(io.ComfyNode):
    """Draws what guidance did at each step, after the sampler has run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELGuidanceReport",
            display_name="Guidance Report",
            category=CATEGORY,
            description="Did the guidance get anywhere? After the sampler has run: the loss of each word over the "
            "steps as a plot, with limits and skipped steps, beside the maps of the last guided step and the boxes.",
            search_aliases=["loss curve", "plot", "chart", "attend and excite", "boxdiff", "layout guidance", "log"],
            is_output_node=True,
            inputs=[
                Report.Input("report", tooltip="From a node that guides: Keep Words, Place Words, ..."),
                io.Latent.Input(
                    "samples",
                    tooltip="The latent that the sampler made with that model. It makes this node wait for the "
                    "sampler, and shows which sampler is meant if several used that model.",
                ),
                io.Image.Input(
                    "image",
                    optional=True,
                    tooltip="The picture under the maps: the one decoded from the same latent. Without it only the "
                    "heat maps are shown.",
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="sheet",
                    tooltip="For each picture of the batch its losses over the steps, and the maps of the last step "
                    "with the words' boxes or masks.",
                ),
                io.String.Output(
                    display_name="text",
                    tooltip="For each guided step: its number, its noise level (sigma), the loss of each word and the "
                    "change, or why it was skipped.",
                ),
            ],
        )

    @classmethod
    def execute(cls, report: Any, samples: dict, image: Any = None) -> io.NodeOutput:
        """Read the run that made this latent, and draw it."""
        sheet, text, drawn = guidance_outputs(report, samples["samples"], image)
        shown = {} if drawn is None else ui.PreviewImage(drawn, cls=cls).as_dict()
        return io.NodeOutput(sheet, text, ui={**shown, **ui.PreviewText(text).as_dict()})


NODES = [ELGuidanceReport]
