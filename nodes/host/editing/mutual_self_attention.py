"""MasaCtrl at the self-attention sites of a twin run, see `core.methods.mutual_self_attention`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.attention.refine import AUTO
from ...core.methods.masking import AttentionMasking, GradientMasking, Masking
from ...core.methods.mutual_self_attention import COARSEST, MutualSelfAttention, matching_places
from ..attention.attention_call import AttentionCall
from ..attention.twin_blocks import SOURCE, TARGET
from ..families.sites import SELF, Site
from ..sampling.mask_sources import MaskSource, mask_source
from .editors import EditingProcessor, PairedRows, TwinCall
from .layers import self_attention_layers

NAME = "MasaCtrl"


@dataclass(frozen=True)
class MutualSelfAttentionEditor:
    """See `editors.Editor`.

    layers: AUTO, or a choice of self-attention layers by name. target, source: where the subject is in either picture,
    each found in its own attention; both or none. Raises ValueError for one mask alone, and for gradients (which would
    need one more call at every step).
    """

    method: MutualSelfAttention
    layers: str = AUTO
    target: Masking | None = None
    source: Masking | None = None

    def __post_init__(self) -> None:
        if (self.target is None) != (self.source is None):
            given, missing = ("masking", "source_masking") if self.source is None else ("source_masking", "masking")
            raise ValueError(
                f"{NAME} has {given}, but not {missing}: what is inside one picture's mask looks inside the other's, "
                "so connect both, or none"
            )
        if any(isinstance(each, GradientMasking) for each in (self.target, self.source)):
            raise ValueError(
                f"{NAME} needs its masks at every step, and Mask from Abs-Grad-SAM would take a model call with "
                "gradients for each: connect Mask from Attention or Mask from Image"
            )

    def installed(self, patcher: ModelPatcher, source: list) -> InstalledMutualSelfAttention:
        """See `Editor`."""
        layers = self_attention_layers(
            patcher,
            self.layers,
            lambda all_of_them: [each for each in all_of_them if each.decodes and each.coarser <= COARSEST],
            NAME,
        )
        masks = []
        for block, masking in ((SOURCE, self.source), (TARGET, self.target)):
            if isinstance(masking, AttentionMasking) and block == SOURCE:
                masking = replace(masking, positive=source)
            if masking is not None:
                masks.append(mask_source(masking, patcher, block))
        return InstalledMutualSelfAttention(self.method, frozenset(layer.name for layer in layers), masks)


@dataclass(frozen=True)
class InstalledMutualSelfAttention:
    """See `editors.InstalledEditor`. names: of the layers. masks: of source and target, or none."""

    method: MutualSelfAttention
    names: frozenset[str]
    masks: Sequence[MaskSource] = ()
    name: str = NAME

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """See `InstalledEditor`: all, whatever the prompts say."""
        return frozenset(texts)

    def claims(self, step: int, steps: int) -> frozenset[tuple[str, str]]:
        """See `InstalledEditor`."""
        return frozenset((SELF, name) for name in self.names) if self.method.acts(step, steps) else frozenset()

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`. Negative conditionings are edited like the positive ones."""
        if not self.names or not self.method.acts(call.step, call.steps):
            return []
        found = [mask.known(call.state) for mask in self.masks]
        masks = [each for each in found if each is not None]
        return [SourceKeys(call, self.names, masks if len(masks) == len(self.masks) else [])]


class SourceKeys(EditingProcessor):
    """Gives the target's queries the source's keys and values in one model call.

    masks: of source and target [1 or B,H,W], on the whole latent; none: every query looks everywhere.
    """

    def __init__(self, call: TwinCall, names: frozenset[str], masks: Sequence[Tensor]) -> None:
        super().__init__(NAME, (SELF,), call)
        self._names = names
        self._masks = masks
        self._places: dict[tuple, list[list[tuple[Tensor, Tensor]]]] = {}

    def chooses(self, site: Site) -> bool:
        """See `EditingProcessor`."""
        return site.name in self._names

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        if self._masks and call.mask is not None:
            self.leave(call, "it has a mask of its own")
            return call
        made = call
        for pair in self._call.pairs:
            k, v = call.k[pair.source], call.v[pair.source]
            made = made.with_rows(pair.target, k=k, v=v)
            places = self._matching(pair, call.site.grid) if self._masks else ()
            for i, sides in enumerate(places):
                for queries, keys in sides:
                    own = slice(i, i + 1)
                    made = made.with_part(pair.target.start + i, queries, k[own, keys], v[own, keys])
        return made

    def _matching(self, pair: PairedRows, grid: tuple[int, int]) -> list[list[tuple[Tensor, Tensor]]]:
        """See `matching_places`, for each picture of a conditioning, which may see an area of the latent alone."""
        if (pair.corner, grid) not in self._places:
            each = zip(*(self._call.inside(mask, pair, grid) for mask in self._masks), strict=True)
            self._places[pair.corner, grid] = [matching_places(*masks) for masks in each]
        return self._places[pair.corner, grid]
