"""The pack's place in the menu, its own socket types, and the outputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "explainable latents"

Subjects = io.Custom("EL_SUBJECTS")
Attention = io.Custom("EL_ATTENTION")
Saliency = io.Custom("EL_SALIENCY")
Masking = io.Custom("EL_MASKING")
Report = io.Custom("EL_REPORT")


def report_outputs() -> list[io.Output]:
    """What the manipulated steps leave behind."""
    return [
        io.Mask.Output(
            display_name="masks",
            tooltip="The mask of each manipulated step (for each picture of a batch), in picture pixels, 1 inside.",
        ),
        Saliency.Output(
            display_name="saliency",
            tooltip="The maps behind the masks, one per word and step; empty when the mask was given. For "
            "Saliency Overlay.",
        ),
    ]
