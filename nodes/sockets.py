"""The pack's place in the menu, its own socket types, and the outputs that several nodes share."""

from __future__ import annotations

from comfy_api.latest import io

CATEGORY = "explainable latents"

Subjects = io.Custom("EL_SUBJECTS")
Attention = io.Custom("EL_ATTENTION")
Saliency = io.Custom("EL_SALIENCY")
Masking = io.Custom("EL_MASKING")
Report = io.Custom("EL_REPORT")
Classifier = io.Custom("EL_CLASSIFIER")
Editor = io.Custom("EL_EDITOR")
Trajectory = io.Custom("EL_TRAJECTORY")
Layout = io.Custom("EL_LAYOUT")


def report_outputs() -> list[io.Output]:
    """The masks of the manipulated steps, and the maps that they were made from."""
    return [
        io.Mask.Output(
            display_name="masks",
            tooltip="The mask of each manipulated step (for each picture of a batch), in picture pixels, 1 inside.",
        ),
        Saliency.Output(
            display_name="saliency",
            tooltip="The maps that the masks were made from, one per word and step; none with Mask from Image. For "
            "Saliency Overlay.",
        ),
    ]
