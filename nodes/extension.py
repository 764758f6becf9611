"""Collects the pack's node classes for ComfyUI."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

from . import attention, correspondence, gradients, images, maps, masks, model_patches, regions, sampling, words


class ExplainableLatents(ComfyExtension):
    """The pack as ComfyUI sees it."""

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        """Every node class of the pack, in menu order: each file of nodes has its own in `NODES`."""
        files = words, masks, sampling, model_patches, attention, regions, gradients, maps, correspondence, images
        return [node for file in files for node in file.NODES]
