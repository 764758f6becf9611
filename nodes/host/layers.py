"""Find a model's cross-attention layers and choose among them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from comfy.ldm.modules.attention import SpatialTransformer, SpatialVideoTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.model_patcher import ModelPatcher

from .compiled import as_written

SUPPORTED = "SD 1.x, SD 2.x and SDXL"


def layer_name(options: dict) -> str:
    """Name of the transformer block being run, from the host's transformer options: `output.3.0` is block ("output",
    3), depth 0."""
    block = options["block"]
    return f"{block[0]}.{block[1]}.{options.get('block_index', 0)}"


def cross_attention_layers(patcher: ModelPatcher) -> tuple[str, ...]:
    """Names of the model's cross-attention layers in the order in which the network runs them.

    Raises ValueError that names the model when it has none that can be read.
    """
    network = as_written(patcher.get_model_object("diffusion_model"))
    names: list[str] = []
    if isinstance(network, UNetModel):
        middle = [] if network.middle_block is None else [network.middle_block]
        for kind, blocks in (("input", network.input_blocks), ("middle", middle), ("output", network.output_blocks)):
            for number, block in enumerate(blocks):
                for module in block.modules():
                    if isinstance(module, SpatialTransformer) and not isinstance(module, SpatialVideoTransformer):
                        depths = range(len(module.transformer_blocks))
                        names += [
                            f"{kind}.{number}.{i}" for i in depths if module.transformer_blocks[i].attn2 is not None
                        ]
    if not names:
        model = type(patcher.model).__name__
        raise ValueError(
            f"attention of the model {model} ({type(network).__name__}) cannot be read: supported are {SUPPORTED}, "
            f"whose UNet has "
            "cross-attention layers. Load one of these."
        )
    return tuple(names)


def one_layer(available: tuple[str, ...], wanted: str) -> str:
    """The name of the single layer that `wanted` chooses, see `select_layers`; a grid chooses none.

    Raises ValueError with the names there are when it is not exactly one.
    """
    chosen = select_layers(available, wanted)
    if chosen.grids or len(chosen.names) != 1:
        found = [name for name in available if name in chosen.names] or available
        raise ValueError(f"layer {wanted!r} is not one layer; choose last, or one of: {', '.join(found)}")
    return next(iter(chosen.names))


def single_layers(available: tuple[str, ...], wanted: str) -> tuple[str, ...]:
    """The layers that `wanted` names, separated by commas, in the network's order. Raises as `one_layer` for each."""
    chosen = {one_layer(available, name) for name in wanted.split(",")}
    return tuple(name for name in available if name in chosen)


@dataclass(frozen=True)
class LayerSelection:
    """Which layers count: by name, or by the (height, width) of their grid of query positions."""

    names: frozenset[str]
    grids: frozenset[tuple[int, int]]

    def __contains__(self, layer: tuple[str, tuple[int, int]]) -> bool:
        name, grid = layer
        return name in self.names or grid in self.grids


def select_layers(available: tuple[str, ...], wanted: str) -> LayerSelection:
    """Read a choice of layers.

    wanted: `all`, `last`, or a list separated by commas of names or beginnings of names (`output`, `output.5`,
    `middle.0.0`) and grids (`16x16`, height x width). Raises ValueError with the names there are when one of them is
    unknown.
    """
    names: set[str] = set()
    grids: set[tuple[int, int]] = set()
    for item in (part.strip().lower() for part in wanted.split(",")):
        if size := re.fullmatch(r"(\d+)\s*x\s*(\d+)", item):
            grids.add((int(size[1]), int(size[2])))
            continue
        found = {"all": available, "last": available[-1:]}.get(item)
        if found is None:
            found = tuple(name for name in available if item and f"{name}.".startswith(f"{item}."))
        if not found:
            raise ValueError(
                f"no cross-attention layer is called {item!r}; choose all, last, a grid such as 16x16, or among: "
                f"{', '.join(available)}"
            )
        names.update(found)
    return LayerSelection(frozenset(names), frozenset(grids))
