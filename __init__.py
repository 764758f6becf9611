"""explainable-latents: a mask from your prompt's own attention, while it samples. A ComfyUI custom-node pack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from comfy_api.latest import ComfyExtension

WEB_DIRECTORY = "./js"


async def comfy_entrypoint() -> ComfyExtension:
    """What ComfyUI calls once to learn the pack's nodes; importing the package alone needs no ComfyUI."""
    from .nodes.extension import ExplainableLatents

    return ExplainableLatents()
