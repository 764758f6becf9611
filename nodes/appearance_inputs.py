"""Inputs that the editors share which give a picture the appearance of another."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .editing_inputs import path_input, share_input
from .host.editing.paths import NOISED, Path
from .sockets import Trajectory

PATH = "appearance_path"


def picture_inputs() -> list[io.Input]:
    """The picture that gives its appearance."""
    return [
        io.Conditioning.Input(
            "prompt",
            tooltip="The prompt of the picture that gives its appearance (published: the same for all three pictures, "
            "a photo of a ...).",
        ),
        path_input(
            PATH,
            NOISED,
            "What the picture that gives its appearance is. noised reference: a given picture, with as much noise as "
            "the step has. recorded: a given picture on the way that Invert Picture or Edit-Friendly Inversion "
            "recorded (published). generated: it is sampled from its prompt.",
        ),
    ]


def structure_inputs(every: str) -> list[io.Input]:
    """When it is the structure of which something is taken over. every: the first one's tooltip."""
    return [
        io.Int.Input("structure_every", default=5, min=0, max=100, advanced=True, tooltip=every),
        share_input(
            "structure_end",
            0.59,
            "Until which share of the steps that is done (published: step 40 of 68).",
            advanced=True,
        ),
    ]


def path_inputs() -> list[io.Input]:
    """What the picture is given by."""
    return [
        io.Latent.Input(
            "reference",
            optional=True,
            tooltip="Only for 'noised reference': the encoded picture, as large as the sampled latent; one for all, or "
            "one for each picture of the batch.",
        ),
        Trajectory.Input(
            "trajectory",
            optional=True,
            tooltip="Only for 'recorded': of the picture that gives its appearance, with the steps, scheduler and "
            "denoise of the sampler.",
        ),
    ]


def path_of(kind: str, reference: dict | None, trajectory: Any) -> Path:
    """What the inputs of that say."""
    return Path(kind, None if reference is None else reference["samples"], trajectory, PATH)
