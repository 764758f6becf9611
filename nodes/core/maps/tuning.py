"""The mask that mask nodes would make of maps with other settings, without running them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..choices import one_of
from .filters import OPERATIONS, apply_filter, gaussian_smooth
from .masks import CHANNELS_TO_MASK, Shaping, saliency_masks
from .saliency import Saliency

SMOOTH = "smooth"
FILTERS = (SMOOTH, *OPERATIONS)


@dataclass(frozen=True)
class Tuning:
    """Which maps become a mask, and how.

    filters: what Gaussian Smooth and Dilate nodes do to the maps before, in their order: (`smooth`, σ, size) or
    (`dilate` or `erode`, size, iterations). words: see `Saliency.of_words`. frame: only the maps of this step or layer,
    named as in their labels; None for all. number: only this one map, whatever words and frame say; None for those.
    refine: how often the maps are refined; None for as often as those that the nodes get.
    shaping, channels: see `saliency_masks`. Raises ValueError for an unknown filter or choice of channels.
    """

    shaping: Shaping
    filters: tuple[tuple[str, float, int], ...] = ()
    words: str = ""
    frame: str | None = None
    number: int | None = None
    channels: str = CHANNELS_TO_MASK[0]
    refine: int | None = None

    def __post_init__(self) -> None:
        one_of("channels", self.channels, CHANNELS_TO_MASK)
        for name, _, _ in self.filters:
            one_of("filter", name, FILTERS)


def tuned_masks(saliency: Saliency, tuning: Tuning) -> Tensor:
    """The masks [B,h,w] of `saliency`, float32, 1 inside: what the nodes give, by what they call.

    Raises ValueError as `gaussian_smooth`, `dilate`, `Saliency.of_words`, `Saliency.at_power` and `saliency_masks` do,
    and for a frame or a map that is not there.
    """
    power = saliency.refined if tuning.refine is None else tuning.refine
    chosen = _chosen(saliency.at_power(power), tuning)  # a filter treats every map by itself
    for name, first, second in tuning.filters:
        chosen = apply_filter(chosen, lambda maps, use=(name, first, second): _filtered(maps, *use))
    return saliency_masks(chosen, tuning.shaping, tuning.channels)


def _filtered(maps: Tensor, name: str, first: float, second: int) -> Tensor:
    if name == SMOOTH:
        return gaussian_smooth(maps, first, second)
    return OPERATIONS[name](maps, int(first), second)


def _chosen(saliency: Saliency, tuning: Tuning) -> Saliency:
    count = len(saliency.labels)
    if tuning.number is not None:
        if not 0 <= tuning.number < count:
            raise ValueError(f"there is no map number {tuning.number}: there are {count}, counted from 0")
        return saliency.select((tuning.number,))
    chosen = saliency.of_words(tuning.words)
    if tuning.frame is None:
        return chosen
    frames = [label.partition(", ")[2] for label in chosen.labels]
    if tuning.frame not in frames:
        raise ValueError(f"there is no map of {tuning.frame}; there are: {', '.join(dict.fromkeys(frames))}")
    return chosen.select(tuple(i for i, frame in enumerate(frames) if frame == tuning.frame))
