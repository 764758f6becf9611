"""How a mask is found while a model samples: the values that cross nodes as EL_MASKING."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..gradients.definition import POLARITIES
from ..maps.masks import Shaping
from ..words.subjects import Subjects

CHANNELS = ("each", "together")
LAST_CALL, CUMULATIVE = CALLS = ("last call", "cumulative")


@dataclass(frozen=True)
class AttentionMasking:
    """The mask is the shaped cross-attention of `subjects`, read from the model calls before the manipulated step.

    calls: `last call` (one before the step, as its code was published) or `cumulative`: the maps of all calls from the
    first step on, added up before they are normalised (as the proposal words it). Raises ValueError for another choice.
    layers: which cross-attention layers count (`all`, `last`, names or grids separated by commas). positive: the
    subjects' prompt as the host's conditioning, [context [1,T,d], options] each; None for the first positive one.
    """

    subjects: Subjects
    shaping: Shaping
    layers: str = "all"
    positive: Sequence[Sequence[Any]] | None = None
    calls: str = LAST_CALL

    def __post_init__(self) -> None:
        if self.calls not in CALLS:
            raise ValueError(f"over_steps {self.calls!r} is not one of {', '.join(CALLS)}")


@dataclass(frozen=True)
class GradientMasking:
    """The mask is the shaped Abs-Grad-SAM of `subjects`, from a model call of its own at the manipulated step.

    channels: `each` latent channel gets its own mask, or all `together` one. polarity, solver, layer: see `grad_sam`
    and the host's `GradientProbe`. positive: as of `AttentionMasking`. Raises ValueError for an unknown choice of
    channels or polarity.
    """

    subjects: Subjects
    shaping: Shaping
    channels: str = "each"
    polarity: str = "absolute"
    solver: str = "structured"
    layer: str = "last"
    positive: Sequence[Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        for name, value, allowed in (("channels", self.channels, CHANNELS), ("polarity", self.polarity, POLARITIES)):
            if value not in allowed:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(allowed)}")


@dataclass(frozen=True)
class ImageMasking:
    """The same given mask at every step. mask: float [B,H,W] in [0,1] at any resolution; 1 is inside.

    Values between mix.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.ndim != 3:
            raise ValueError(f"a mask has shape [batch, height, width], got {tuple(self.mask.shape)}")
        if not (self.mask.isfinite().all() and self.mask.amin() >= 0 and self.mask.amax() <= 1):
            raise ValueError("a mask holds numbers from 0 (outside) to 1 (inside); this one has others")


Masking = AttentionMasking | GradientMasking | ImageMasking
