"""Segment Picture: the regions that the model sees in a picture, without words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.regions import Segmenting, outputs, segment_pictures, show
from .inputs import region_input
from .sockets import CATEGORY, Subjects


class ELSegmentPicture(io.ComfyNode):
    """Cuts a picture into regions by the model's self-attention, as DiffSeg does."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        defaults = Segmenting()
        return io.Schema(
            node_id="ELSegmentPicture",
            display_name="Segment Picture",
            category=CATEGORY,
            description="Cuts a picture into regions: places that the model's self-attention treats alike belong "
            "together (DiffSeg). One model call, no training, no prompt needed; with the prompt's words each region "
            "gets a name. SD 1.x, SD 2.x, SDXL.",
            search_aliases=["diffseg", "segmentation", "segment anything", "regions", "self attention", "label map"],
            is_output_node=True,
            inputs=[
                io.Model.Input("model", tooltip="SD 1.x, SD 2.x or SDXL, with its patches."),
                io.Conditioning.Input(
                    "positive", tooltip="An empty prompt, as in the paper, or one that describes the picture, encoded."
                ),
                io.Latent.Input(
                    "latent", tooltip="The picture, from VAE Encode. Each picture of a batch has regions of its own."
                ),
                io.Float.Input(
                    "threshold",
                    default=defaults.threshold,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="How different (KL divergence) the attention of two places may be within a region. Lower "
                    "makes more and smaller regions. The paper's code uses 0.9 and 1.1.",
                ),
                io.Int.Input(
                    "anchors",
                    default=defaults.anchors,
                    min=1,
                    max=64,
                    advanced=True,
                    tooltip="How many places along the picture's longer side regions start from. Fewer is faster and "
                    "may miss small things; the paper's code uses 16.",
                ),
                io.Boolean.Input(
                    "k_means",
                    default=defaults.k_means,
                    advanced=True,
                    tooltip="Tidy the regions with k-means of all places, as the paper's code can do for smoother "
                    "outlines.",
                ),
                io.Float.Input(
                    "noise_level",
                    default=defaults.noise_level,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="The noise level that the model is told, from none (0) to pure noise (1). The paper's code "
                    "uses 0.3.",
                ),
                io.Boolean.Input(
                    "add_noise",
                    default=defaults.add_noise,
                    advanced=True,
                    tooltip="Whether the picture is also noised to that level. off, as in the paper's code: the model "
                    "sees the clean picture.",
                ),
                # without a new one after each run: it is seldom used
                io.Int.Input(
                    "seed",
                    default=defaults.seed,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    advanced=True,
                    tooltip="Seed of that noise. As in samplers, each picture of a batch has a noise of its own: the "
                    "i-th of the seed.",
                ),
                Subjects.Input(
                    "subjects",
                    optional=True,
                    tooltip="The words that name the regions, from Parse Subjects with the prompt of positive: each "
                    "region takes the word that the model looks at most in it.",
                ),
                region_input(),
            ],
            outputs=[
                io.Image.Output(
                    display_name="label map",
                    tooltip="Each picture with every region in a colour of its own, in the picture's size.",
                ),
                io.Mask.Output(
                    display_name="masks",
                    tooltip="One mask per region, in picture pixels: those of the first picture from the largest to "
                    "the smallest, then those of the next picture.",
                ),
                io.String.Output(
                    display_name="regions",
                    tooltip="A line for each mask: its number in the batch, counted from 0, the picture if there are "
                    "several, the word, the share of the picture, the colour.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent: Any,
        threshold: float,
        anchors: int,
        k_means: bool,
        noise_level: float,
        add_noise: bool,
        seed: int,
        subjects: Any = None,
        region: Any = None,
    ) -> io.NodeOutput:
        """Call the model once for each picture, and show the label maps and the lines on the node."""
        how = Segmenting(noise_level, threshold, anchors, k_means, add_noise, seed)
        pictures = segment_pictures(model, positive, latent, how, subjects, region)
        images, masks, text = outputs(pictures)
        show(pictures, text)
        shown = {**ui.PreviewImage(images, cls=cls).as_dict(), **ui.PreviewText(text).as_dict()}
        return io.NodeOutput(images, masks, text, ui=shown)


NODES = [ELSegmentPicture]
