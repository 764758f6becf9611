"""Collects the pack's node classes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    appearance_editing,
    attention,
    correspondence,
    editing,
    gradients,
    images,
    inversion,
    maps,
    masks,
    model_patches,
    prompt_difference,
    regional_prompts,
    regions,
    sampling,
    self_attention_editing,
    show_attention,
    teaching,
    words,
)
from .host.ui import live_outline, live_words


class ExplainableLatents(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def on_load(self) -> None:
        """Let the server answer the browser."""
        live_words.add_route()
        live_outline.add_route()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node class of the pack, in menu order: each file of nodes has its own in `NODES`."""
        perceiving = attention, regions, gradients, maps, correspondence, teaching, images
        editors = editing, self_attention_editing, appearance_editing, inversion, prompt_difference, regional_prompts
        files = words, show_attention, masks, sampling, model_patches, *editors, *perceiving
        return [node for file in files for node in file.NODES]
