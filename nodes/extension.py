"""Collects the pack's node classes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import (
    appearance_editing,
    attention,
    classifier_guidance,
    correspondence,
    editing,
    gradients,
    guidance,
    guidance_report,
    guide_shape,
    images,
    interaction,
    inversion,
    layout,
    maps,
    masks,
    model_patches,
    phrases,
    placed_phrases,
    prompt_difference,
    regional_prompts,
    regions,
    sampling,
    self_attention_editing,
    show_attention,
    teaching,
    words,
)
from .host.pauses import routes
from .host.ui import live_layout, live_outline, live_words


class ExplainableLatents(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def on_load(self) -> None:
        """Let the server answer the browser."""
        live_words.add_route()
        live_outline.add_route()
        live_layout.add_route()
        routes.add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node class of the pack, in menu order: each file of nodes has its own in `NODES`."""
        perceiving = attention, regions, gradients, maps, correspondence, teaching, images
        editors = editing, self_attention_editing, appearance_editing, inversion, prompt_difference
        regions_and_phrases = regional_prompts, phrases, placed_phrases
        files = (
            words,
            show_attention,
            layout,
            masks,
            sampling,
            model_patches,
            interaction,
            guidance,
            classifier_guidance,
            guidance_report,
            guide_shape,
            *editors,
            *regions_and_phrases,
            *perceiving,
        )
        return [node for file in files for node in file.NODES]
