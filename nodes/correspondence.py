"""Find Points, Carry Mask: a place, or a mask, of one picture found in another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.maps.masks import Shaping
from .core.maps.parts import EVERY
from .feature_inputs import feature_inputs, pictures_inputs
from .host.features.correspondence import KEEP, Pictures, carried_mask, dift, found_points
from .inputs import seed_input
from .shaping_inputs import parts_inputs
from .sockets import CATEGORY


class ELFindPoints(io.ComfyNode):
    """Finds points of one picture in another by what the model makes of both."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELFindPoints",
            display_name="Find Points",
            category=CATEGORY,
            description="Where in picture B is this point of picture A? An eye is found on another animal, a wheel on "
            "another car, by the model's own features (DIFT); nothing is trained or sampled. SD 1.x, SD 2.x, SDXL.",
            search_aliases=["correspondence", "dift", "match points", "key points", "track points", "sam points"],
            inputs=[
                *pictures_inputs(),
                io.String.Input(
                    "points",
                    default="",
                    multiline=True,
                    tooltip='Points of picture A in pixels: [[x, y], ...], or [{"x": 10, "y": 20}, ...] as from Points '
                    "Editor (KJNodes). Empty: points of the mask.",
                ),
                io.Int.Input(
                    "count",
                    default=8,
                    min=1,
                    max=256,
                    tooltip="How many points, spread evenly, are taken from the mask.",
                ),
                io.Combo.Input(
                    "keep",
                    options=list(KEEP),
                    default=KEEP[0],
                    tooltip="all points: every point has an answer, also one that picture B does not show. mutual: "
                    "only points that are found again on the way back from B to A.",
                ),
                *feature_inputs(),
                seed_input("Seed of the noise."),
                io.Mask.Input("mask", optional=True, tooltip="Picks points of picture A, in place of the text."),
            ],
            outputs=[
                io.String.Output(
                    display_name="points",
                    is_output_list=True,
                    tooltip="[[x, y, similarity], ...] in pixels of B, one text per picture B. Similarity is the "
                    "confidence: a cosine, 1 for equal features.",
                ),
                io.String.Output(
                    display_name="coordinates",
                    is_output_list=True,
                    tooltip='[{"x": 10, "y": 20}, ...] in whole pixels of B, for nodes that take points (SAM 2, SAM 3, '
                    "KJNodes), one text per picture B.",
                ),
                io.Image.Output(
                    display_name="sheet", tooltip="A and B side by side, with the points numbered, one per picture B."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        picture_a: Any,
        picture_b: Any,
        points: str,
        count: int,
        keep: str,
        noise_level: float,
        noises: int,
        block: str,
        seed: int,
        mask: Any = None,
    ) -> io.NodeOutput:
        """Read the features of both pictures, compare them, and show the matches on the node."""
        reader = dift(model, positive, block, noise_level, noises, seed)
        return io.NodeOutput(*found_points(reader, Pictures(vae, picture_a, picture_b), points, mask, count, keep))


class ELCarryMask(io.ComfyNode):
    """Finds what a mask of one picture covers in another picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELCarryMask",
            display_name="Carry Mask",
            category=CATEGORY,
            description="Finds in picture B what a mask covers in picture A: mark a thing once, and find it in other "
            "pictures, by the model's own features (DIFT); nothing is trained or sampled. SD 1.x, SD 2.x, SDXL.",
            search_aliases=["correspondence", "dift", "transfer mask", "propagate mask", "one shot segmentation"],
            inputs=[
                *pictures_inputs(),
                io.Mask.Input("mask", tooltip="What to find, marked in picture A; 1 is inside."),
                io.Int.Input(
                    "neighbours",
                    default=3,
                    min=1,
                    max=256,
                    advanced=True,
                    tooltip="How many places of A, those most like it, vote on each place of B.",
                ),
                io.Float.Input(
                    "threshold",
                    default=0.5,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="The share of these votes above which a place is inside. 0: no threshold; the mask is the "
                    "share itself.",
                ),
                *feature_inputs(),
                seed_input("Seed of the noise."),
                *parts_inputs(),
            ],
            outputs=[io.Mask.Output(display_name="mask", tooltip="The mask of each picture B, in its pixels.")],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        vae: Any,
        positive: Any,
        picture_a: Any,
        picture_b: Any,
        mask: Any,
        neighbours: int,
        threshold: float,
        noise_level: float,
        noises: int,
        block: str,
        seed: int,
        parts: str = EVERY,
        part_count: int = 1,
        points: str = "",
        fill_holes: bool = False,
    ) -> io.NodeOutput:
        """Read the features of both pictures and let the places of A vote."""
        reader = dift(model, positive, block, noise_level, noises, seed)
        kept = Shaping(parts=parts, part_count=part_count, points=points, fill_holes=fill_holes)
        pictures = Pictures(vae, picture_a, picture_b)
        return io.NodeOutput(carried_mask(reader, pictures, mask, neighbours, threshold, kept))


NODES = [ELFindPoints, ELCarryMask]
