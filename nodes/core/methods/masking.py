"""Descriptions of how to find a mask while a model samples; they cross nodes as EL_MASKING."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..attention.refine import AUTO
from ..choices import one_of
from ..gradients.definition import POLARITIES
from ..maps.masks import Shaping
from ..words.subjects import Subjects

CHANNELS = ("each", "together")
LAST_CALL, CUMULATIVE = CALLS = ("last call", "cumulative")
# At which of the manipulated steps the user is asked, what the painter begins with, and what follows if nobody answers.
FIRST, EACH, LISTED = ASK_AT = ("first manipulated step", "each manipulated step", "listed steps")
FOUND, LAST = STARTS = ("the found mask", "last painted")
CONTINUE, CANCEL = THEN = ("continue", "cancel")


@dataclass(frozen=True)
class AttentionMasking:
    """The mask is made from the cross-attention to `subjects` in the sampler's model calls before the manipulated step.

    shaping: how the attention maps become a mask. layers: which layers are read (AUTO for those that are usual for the
    model, `all`, `last`, names, ranges or grids separated by commas). positive: the CONDITIONING of the subjects'
    prompt, a list of [context [1,T,d], options]; None for the first positive one. calls: `last call` takes the maps of
    the one call before the step (as the published code does), `cumulative` those of all calls from the first step on,
    added up before they are normalised (as the proposal describes it). refine: how often the maps are sharpened by
    self-attention, see `core.attention.refine`; 0 for never; refine_layers: by that of which layers. Raises ValueError
    for another choice.
    """

    subjects: Subjects
    shaping: Shaping
    layers: str = AUTO
    positive: Sequence[Sequence[Any]] | None = None
    calls: str = LAST_CALL
    refine: int = 0
    refine_layers: str = AUTO

    def __post_init__(self) -> None:
        one_of("over_steps", self.calls, CALLS)


@dataclass(frozen=True)
class GradientMasking:
    """The mask is made from the Abs-Grad-SAM of `subjects`, for which the model is called once more at the step.

    shaping, positive, refine, refine_layers: as in `AttentionMasking`. channels: `each` latent channel gets a mask of
    its own, or all `together` one. polarity: see `core.gradients.definition`. solver, layer: see the host's
    `GradientProbe`. Raises ValueError for an unknown choice of channels or polarity.
    """

    subjects: Subjects
    shaping: Shaping
    channels: str = "each"
    polarity: str = "absolute"
    solver: str = "structured"
    layer: str = "last"
    positive: Sequence[Sequence[Any]] | None = None
    refine: int = 0
    refine_layers: str = AUTO

    def __post_init__(self) -> None:
        one_of("channels", self.channels, CHANNELS)
        one_of("polarity", self.polarity, POLARITIES)


@dataclass(frozen=True)
class ImageMasking:
    """The same ready-made mask at every manipulated step.

    mask: float [B,H,W] at any resolution, 1 inside, 0 outside; values between mix both. Raises ValueError for another
    shape or range.
    """

    mask: Tensor

    def __post_init__(self) -> None:
        if self.mask.ndim != 3:
            raise ValueError(f"a mask has shape [batch, height, width], got {tuple(self.mask.shape)}")
        if not (self.mask.isfinite().all() and self.mask.amin() >= 0 and self.mask.amax() <= 1):
            raise ValueError("a mask holds numbers from 0 (outside) to 1 (inside); this one has others")


@dataclass(frozen=True)
class PaintedMasking:
    """Another masking, over whose masks the user paints while the sampler waits.

    masking: finds the mask. ask_at: FIRST, EACH or LISTED of the manipulated steps; listed: which, as of
    `parse_steps`. start: what the painter begins with, FOUND or LAST, the found mask with what was painted at the stop
    before. seconds: to wait for an answer, 0 for as long as it takes. then: CONTINUE or CANCEL after that time.
    answers: recorded answers that are given in place of the user's, who is not asked then; empty for none. metadata: of
    the images of the run, for the host. Raises ValueError for another choice, and for a masking that is painted over
    already.
    """

    masking: AttentionMasking | GradientMasking | ImageMasking
    ask_at: str
    listed: str = ""
    start: str = FOUND
    seconds: int = 600
    then: str = CONTINUE
    answers: str = ""
    metadata: Any = None

    def __post_init__(self) -> None:
        one_of("ask_at", self.ask_at, ASK_AT)
        one_of("start_from", self.start, STARTS)
        one_of("when_over", self.then, THEN)
        if isinstance(self.masking, PaintedMasking):
            raise ValueError("this masking is painted over already: use one Paint Mask While Sampling")


Masking = AttentionMasking | GradientMasking | ImageMasking | PaintedMasking
