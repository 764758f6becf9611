"""The attention layers of a model among which editors choose."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from comfy.model_patcher import ModelPatcher

from ...core.attention.refine import AUTO
from ..attention.layer_choice import select_layers
from ..families.family import family_of, network_of
from ..families.offers import EDITING
from ..families.sites import SELF
from ..families.unet_blocks import attention_scales


@dataclass(frozen=True)
class Layer:
    """One attention layer. kind, name: see `Site`. coarser: how many times coarser than the latent its grid is."""

    kind: str
    name: str
    coarser: int

    @property
    def block(self) -> str:
        """The network's block that it is in: `output.5` of `output.5.0`."""
        return ".".join(self.name.split(".")[:2])

    @property
    def decodes(self) -> bool:
        """Whether it is in the second half of a UNet."""
        return self.name.startswith("output.")


def layers_of(patcher: ModelPatcher) -> tuple[Layer, ...]:
    """The model's attention layers, those of each kind in running order. Raises ValueError as `family_of`."""
    family, network = family_of(patcher, EDITING), network_of(patcher)
    scales = attention_scales(network)
    return tuple(
        Layer(kind, name, scales.get(".".join(name.split(".")[:2]), 1))
        for kind in dict.fromkeys((family.text_kind, family.picture_kind))
        for name in family.site_names(network, kind)
    )


def self_attention_layers(
    patcher: ModelPatcher, wanted: str, usual: Callable[[list[Layer]], list[Layer]], method: str
) -> list[Layer]:
    """The self-attention layers that `wanted` names, see `select_layers`; AUTO for the `usual` ones of all of them.

    method: the editor's name. Raises ValueError for unknown layers, grids, and a model that has none.
    """
    layers = [layer for layer in layers_of(patcher) if layer.kind == SELF]
    if not any(layer.decodes for layer in layers):
        raise ValueError(
            f"{method} edits self-attention in the decoder of a UNet, which this model has not: use SD 1.x, SD 2.x or "
            "SDXL"
        )
    if wanted.strip().lower() == AUTO:
        return usual(layers)
    names = tuple(layer.name for layer in layers)
    chosen = select_layers(names, wanted, "self-attention", (AUTO,))
    if chosen.grids:
        raise ValueError(
            f"layers {wanted!r}: {method} takes layers by name, and no grids; there are {', '.join(names)}"
        )
    return [layer for layer in layers if layer.name in chosen.names]
