"""Smoothing, dilation and thresholds on what crosses nodes: saliency and MASK."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .masks import Shaping, dilate, each_mask, erode, shape_mask
from .saliency import Saliency

OPERATIONS = {"dilate": dilate, "erode": erode}
# What becomes of maps that have latent channels, as a MASK has none.
CHANNELS_TO_MASK = ("together", "each", "whole")


def filtered(maps: Saliency | Tensor, change: Callable[[Tensor], Tensor]) -> Saliency | Tensor:
    """Saliency or a MASK [B,H,W] with every map changed, as the same type, on the device it is on.

    A MASK of any float type keeps it (whole numbers become float32); it is computed in float32. Raises ValueError for
    anything else.
    """
    if isinstance(maps, Saliency):
        return maps.with_maps(change(maps.maps))
    if not isinstance(maps, Tensor) or maps.ndim not in (2, 3):
        shape = f" of shape {list(maps.shape)}" if isinstance(maps, Tensor) else ""
        raise ValueError(
            f"this needs saliency or a MASK [batch, height, width], and got {type(maps).__name__}{shape}; a picture "
            "becomes a MASK with Convert Image to Mask"
        )
    return change(maps.float()).to(maps.dtype if maps.is_floating_point() else torch.float32)


def saliency_masks(
    saliency: Saliency, rule: str, value: float, combine: str, invert: bool, channels: str, flat: str = "error"
) -> Tensor:
    """Masks on the latent grid, float32, 1 inside: [B,h,w], or [S·B,h,w] for `combine` `each`.

    The order of `each` is map by map: the first word's mask of every latent, then the second word's. channels, for maps
    of latent channels: `together` divides their mean, `each` divides every channel by itself and `whole` all channels
    at one level; the last two give the share of channels (0, 0.25 ... 1) whose mask covers a place. flat: see
    `Shaping`. Raises ValueError as `threshold` does, and for an unknown choice.
    """
    if channels not in CHANNELS_TO_MASK:
        raise ValueError(f"channels {channels!r} is not one of: {', '.join(CHANNELS_TO_MASK)}")
    maps = saliency.maps
    if maps.ndim == 5 and channels == "together":
        maps = maps.mean(2)
    separate = combine == "each"
    shaping = Shaping(rule, value, "union" if separate else combine, invert, whole=channels == "whole", flat=flat)
    if separate:
        masks = each_mask(maps, shaping, saliency.labels).flatten(0, 1)
    else:
        masks = shape_mask(maps, shaping, saliency.labels)
    return masks if masks.ndim == 3 else masks.mean(1)
