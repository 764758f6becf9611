"""Cross-Image Attention at the self-attention sites of a twin run, see `core.methods.cross_image_attention`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.attention.refine import AUTO
from ...core.methods.appearance import COARSEST, STRUCTURE
from ...core.methods.cross_image_attention import CrossImageAttention, contrasted_attention
from ..attention.attention_call import AttentionCall
from ..attention.twin_blocks import APPEARANCE, WITHOUT
from ..families.sites import SELF, Site
from .appearance import AppearancePicture
from .editors import EditingProcessor, TwinCall
from .layers import Layer, self_attention_layers
from .local_blend import BlockState

NAME = "Cross-Image Attention"


@dataclass(frozen=True)
class CrossImageAttentionEditor:
    """See `editors.Editor`. layers: AUTO, or a choice of self-attention layers by name."""

    method: CrossImageAttention
    picture: AppearancePicture
    layers: str = AUTO

    def installed(self, patcher: ModelPatcher, source: list) -> InstalledCrossImageAttention:
        """See `Editor`."""
        layers = self_attention_layers(patcher, self.layers, fine_layers, NAME)
        return InstalledCrossImageAttention(self.method, self.picture, tuple(layers))


def fine_layers(layers: list[Layer]) -> list[Layer]:
    """Those of the decoder on the latent's grid and on the next coarser one."""
    return [layer for layer in layers if layer.decodes and layer.coarser <= COARSEST]


@dataclass(frozen=True)
class InstalledCrossImageAttention:
    """See `appearance.InstalledAppearance`."""

    method: CrossImageAttention
    picture: AppearancePicture
    layers: tuple[Layer, ...]
    name: str = NAME

    @property
    def blocks(self) -> tuple[str, ...]:
        """See `InstalledAppearance`: a guidance of 1 needs no prediction without the editor."""
        method = self.method
        takes = bool(method.guidance and self.layers) and not method.schedule.is_empty
        beside = (APPEARANCE,) if takes or method.schedule.statistics < 1 else ()
        return (*beside, WITHOUT) if takes and method.guidance != 1 else beside

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """See `InstalledEditor`: all, whatever the prompts say."""
        return frozenset(texts)

    def claims(self, step: int, steps: int) -> frozenset[tuple[str, str]]:
        """See `InstalledEditor`."""
        return frozenset((SELF, name) for name in self._taken(step, steps))

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`. Negative conditionings are edited like the positive ones."""
        taken = self._taken(call.step, call.steps)
        return [OtherKeys(call, taken, self.method.contrast)] if taken else []

    def give_statistics(self, patcher: ModelPatcher, state: BlockState) -> None:
        """See `InstalledAppearance`."""
        self.picture.give_statistics(patcher, self.method.schedule, state)

    def led_on(self, edited: Tensor, plain: Tensor, step: int, steps: int) -> Tensor:
        """See `InstalledAppearance`."""
        return plain + self.method.led_on(step, steps) * (edited - plain) if self._taken(step, steps) else edited

    def _taken(self, step: int, steps: int) -> dict[str, str]:
        """Of which picture each layer takes keys and values at a step, by its name."""
        found = {layer.name: self.method.taken_from(step, steps, layer.coarser) for layer in self.layers}
        return {name: picture for name, picture in found.items() if picture is not None}


class OtherKeys(EditingProcessor):
    """Gives the target's queries the keys and values of the appearance, or of the structure, in one model call.

    taken: of which picture, by the layer's name. contrast: of the probabilities; 1 leaves them to the user's backend.
    """

    def __init__(self, call: TwinCall, taken: Mapping[str, str], contrast: float) -> None:
        super().__init__(NAME, (SELF,), call)
        self._taken = taken
        self._contrast = contrast

    def chooses(self, site: Site) -> bool:
        """See `EditingProcessor`."""
        return site.name in self._taken

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        made, structure = call, self._taken[call.site.name] == STRUCTURE
        contrasted = partial(contrasted_attention, heads=call.site.heads, contrast=self._contrast, scale=call.scale)
        for pair in self._call.pairs:
            theirs = pair.source if structure else pair.appearance
            made = made.with_rows(pair.target, k=call.k[theirs], v=call.v[theirs])
            made = made if self._contrast == 1 else made.with_computed(pair.target, contrasted)
        return made
