"""Cross-Image Attention at the self-attention sites of a twin run, see `core.methods.cross_image_attention`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from comfy.model_patcher import ModelPatcher

from ...core.attention.refine import AUTO
from ...core.methods.appearance import STRUCTURE
from ...core.methods.cross_image_attention import CrossImageAttention, contrasted_attention
from ..attention.attention_call import AttentionCall
from ..families.sites import SELF, Site
from .appearance import AppearancePicture, InstalledAppearance
from .editors import EditingProcessor, TwinCall

NAME = "Cross-Image Attention"


@dataclass(frozen=True)
class CrossImageAttentionEditor:
    """See `editors.Editor`. layers: AUTO, or a choice of self-attention layers by name."""

    method: CrossImageAttention
    picture: AppearancePicture
    layers: str = AUTO

    def installed(self, patcher: ModelPatcher, source: list) -> InstalledAppearance:
        """See `Editor`."""
        return InstalledCrossImageAttention.on(patcher, self.method, self.picture, self.layers)


class InstalledCrossImageAttention(InstalledAppearance):
    """See `InstalledAppearance`."""

    name = NAME

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`. Negative conditionings are edited like the positive ones."""
        taken = self.taken(call.step, call.steps)
        return [OtherKeys(call, taken, self.method.contrast)] if taken else []


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
