"""The inputs that say which of several prompts the subjects come from."""

from __future__ import annotations

from comfy_api.latest import io


def prompt_input() -> io.Input:
    """For nodes that watch a sampler, which has the prompts."""
    return io.Conditioning.Input(
        "positive",
        optional=True,
        advanced=True,
        tooltip="Only where several different prompts are combined, or another node gives parts of the picture prompts "
        "of their own (Attention Couple): the conditioning of the prompt that the subjects come from. Without it the "
        "first positive prompt counts.",
    )


def region_input() -> io.Input:
    """For nodes that call the model themselves, with a prompt."""
    return io.Conditioning.Input(
        "region",
        optional=True,
        advanced=True,
        tooltip="Only where another node gives parts of the picture prompts of their own (Attention Couple): the "
        "conditioning of the region that the subjects come from.",
    )
