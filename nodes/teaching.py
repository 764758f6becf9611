"""Teach Regions, Find Regions: a few pictures with masks teach what to find in others."""

from __future__ import annotations

import math
from typing import Any

from comfy_api.latest import io

from .feature_inputs import model_inputs
from .host.features.classifier import Classifier as Taught
from .host.features.classifier import version_of
from .host.features.teaching import found_regions, named_masks, taught
from .inputs import seed_input
from .sockets import CATEGORY, Classifier


class ELTeachRegions(io.ComfyNode):
    """Teaches small perceptrons on a model's features what the masks of a few pictures cover."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELTeachRegions",
            display_name="Teach Regions",
            category=CATEGORY,
            description="Teaches what your masks mean by one to a few dozen pictures: ten small perceptrons learn it "
            "from the model's own features in seconds to minutes. The model itself does not change. For Find Regions.",
            search_aliases=["few shot segmentation", "label efficient", "train segmentation", "pixel classifier"],
            is_output_node=True,
            inputs=[
                *model_inputs(),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt that fits all pictures, from CLIP Text Encode; an empty one will do."
                ),
                io.Image.Input("pictures", tooltip="The pictures that teach: one to a few dozen, in a batch."),
                io.Mask.Input("mask", tooltip="The first class: a mask for each picture, 1 inside."),
                io.String.Input(
                    "names",
                    default="subject",
                    tooltip="What the classes are called, separated by commas, in the order of the masks. What no mask "
                    "covers is the rest.",
                ),
                io.Int.Input(
                    "pixels",
                    default=1000,
                    min=10,
                    max=20000,
                    tooltip="How many pixels of each picture are learnt from, shared evenly between its classes.",
                ),
                io.String.Input(
                    "noise_levels",
                    default="0.05, 0.15, 0.25",
                    advanced=True,
                    tooltip="The noise levels at which features are read, with a model call for each, separated by "
                    "commas; from 0 (clean) to 1. As in the paper.",
                ),
                io.String.Input(
                    "blocks",
                    default="auto",
                    advanced=True,
                    tooltip="The blocks whose outputs are read: auto (the decoder's last on each grid) or names "
                    "(output.5, output.8), separated by commas.",
                ),
                seed_input("Seed of noise, choice of pixels and training."),
                io.String.Input(
                    "save_as",
                    default="",
                    tooltip="A name: the classifier is saved in ComfyUI's output folder, in explainable-latents, for "
                    "Find Regions in other workflows. A file of that name is replaced. Empty: not saved.",
                ),
                io.Mask.Input("mask_2", optional=True, tooltip="The second class, if there is one."),
                io.Mask.Input("mask_3", optional=True, tooltip="The third class, if there is one."),
                io.Mask.Input("mask_4", optional=True, tooltip="The fourth class, if there is one."),
            ],
            outputs=[
                Classifier.Output(
                    display_name="classifier", tooltip="What was learnt, for Find Regions with the same model."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        pictures: Any,
        mask: Any,
        names: str,
        pixels: int,
        noise_levels: str,
        blocks: str,
        seed: int,
        save_as: str,
        mask_2: Any = None,
        mask_3: Any = None,
        mask_4: Any = None,
    ) -> io.NodeOutput:
        """Read features of the pictures' pixels and train on them."""
        masks = named_masks(names, [mask, mask_2, mask_3, mask_4])
        return io.NodeOutput(taught(model, vae, positive, pictures, masks, blocks, noise_levels, pixels, seed, save_as))


class ELFindRegions(io.ComfyNode):
    """Finds in pictures what Teach Regions has learnt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELFindRegions",
            display_name="Find Regions",
            category=CATEGORY,
            description="Finds in pictures what Teach Regions has learnt: a mask for each class, and how uncertain "
            "each pixel is. The model must be the one that was taught.",
            search_aliases=["few shot segmentation", "label efficient", "segment", "pixel classifier"],
            inputs=[
                *model_inputs(),
                io.Image.Input("pictures", tooltip="The pictures to look in, of any size."),
                io.String.Input(
                    "file",
                    default="",
                    tooltip="The name of a saved classifier, where none is connected.",
                ),
                Classifier.Input("classifier", optional=True, tooltip="From Teach Regions."),
            ],
            outputs=[
                io.Mask.Output(
                    display_name="masks",
                    tooltip="A mask for each class and picture: the first class in all pictures, then the second.",
                ),
                io.Mask.Output(
                    display_name="uncertainty",
                    tooltip="For each picture how much the ten perceptrons disagree, pixel by pixel: 0 they agree, 1 "
                    "as much as they can.",
                ),
                io.String.Output(display_name="names", tooltip="The classes' names, in the order of the masks."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, file: str | None = None, **_: Any) -> float | str:
        """A new value when the saved classifier is another one; always where another node gives the file's name."""
        return math.nan if file is None else version_of(file)

    @classmethod
    def execute(cls, model: Any, vae: Any, pictures: Any, file: str, classifier: Any = None) -> io.NodeOutput:
        """Read the pictures as in teaching and classify every pixel."""
        return io.NodeOutput(*found_regions(model, vae, pictures, Taught.given(classifier, file)))


NODES = [ELTeachRegions, ELFindRegions]
