"""From saliency maps to masks: filters, thresholds and the combination of several subjects, channels and layers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from textwrap import shorten

import torch
from torch import Tensor

from ..choices import one_of
from .filters import dilate, gaussian_smooth
from .parts import EVERY, KEPT_PARTS, LARGEST, TOUCHING, fill_holes, largest_parts, parts_at
from .points import read_points
from .saliency import Saliency
from .thresholds import above_threshold, check_rule

COMBINATIONS = ("sum", "union", "intersection")
# What is smoothed and dilated: the maps, or (as the Abs-Grad-SAM paper describes) the mask made from them.
FILTER_ORDERS = BEFORE, AFTER = ("before the threshold", "after the threshold")
# How maps with latent channels become one MASK, which has no channels.
CHANNELS_TO_MASK = ("together", "each", "whole")


@dataclass(frozen=True)
class Shaping:
    """How maps become a mask.

    rule, value: the threshold, see `RULES`. combine: `sum` adds the subjects' maps before one threshold (Experiment 1),
    `union` and `intersection` join their masks. invert: exchange inside and outside.
    smooth_sigma, smooth_size: Gaussian smoothing, in latent pixels. dilate_size, dilate_iterations: grey dilation of
    what was smoothed. smooth_and_dilate: one of `FILTER_ORDERS`; after the threshold it is the mask that is smoothed,
    so that it has a soft edge, and only then inverted.
    across_channels: one threshold for all latent channels, not one for each. flat_map: one of `FLAT_MAPS`: whether a
    map that is the same everywhere is an error, or is all inside or all outside.
    parts: one of `KEPT_PARTS`: which connected parts of what is inside are kept: all, the `part_count` largest ones, or
    those at any of the `points`, a text as of `read_points` in picture pixels. fill_holes: what the parts that are kept
    surround is inside too. Both come right after the threshold.
    Raises ValueError for an unknown choice.
    """

    rule: str = "mean"
    value: float = 0.0
    combine: str = "sum"
    invert: bool = False
    smooth_sigma: float = 0.0
    smooth_size: int = 3
    dilate_size: int = 3
    dilate_iterations: int = 0
    across_channels: bool = False
    smooth_and_dilate: str = BEFORE
    flat_map: str = "error"
    parts: str = EVERY
    part_count: int = 1
    points: str = ""
    fill_holes: bool = False

    def __post_init__(self) -> None:
        check_rule(self.rule, self.flat_map)
        one_of("combine", self.combine, COMBINATIONS)
        one_of("smooth_and_dilate", self.smooth_and_dilate, FILTER_ORDERS)
        one_of("parts", self.parts, KEPT_PARTS)


def shape_mask(
    maps: Tensor, shaping: Shaping, labels: tuple[str, ...], layers: int = 1, spatial_scale: int = 8
) -> Tensor:
    """One mask per latent from the maps of several subjects.

    maps: [S,B,h,w] or [S,B,C,h,w]; of several `layers`, all of one layer's maps before the next layer's, and the masks
    of the layers intersect. labels: one per map, to name it in errors. spatial_scale: picture pixels per latent pixel.
    Returns float32, [B,h,w] or [B,C,h,w]: 0 and 1, or between where the mask was smoothed. Raises ValueError as
    `above_threshold`, and where there is no part at any of the points.
    """
    maps = _filtered_before(maps, shaping)
    per_layer = len(labels) // layers
    masks = [
        _combined(some, shaping, labels[start : start + per_layer])
        for start, some in zip(range(0, len(labels), per_layer), maps.split(per_layer), strict=True)
    ]
    return _finished(torch.stack(masks).all(0), shaping, spatial_scale)


def mask_per_map(maps: Tensor, shaping: Shaping, labels: tuple[str, ...], spatial_scale: int = 8) -> Tensor:
    """A mask for every map, not combined: float32 of the shape of `maps`. Raises ValueError as `shape_mask`."""
    inside = _inside(_filtered_before(maps, shaping), shaping, labels)
    return _finished(inside.flatten(0, 1), shaping, spatial_scale).view_as(maps)


def saliency_masks(saliency: Saliency, shaping: Shaping, channels: str, separate: bool = False) -> Tensor:
    """Masks on the latent grid, float32, 1 inside: [B,h,w], or [S·B,h,w] if `separate`.

    separate: a mask for every map, whatever `shaping.combine` says: the first word's of every latent, then the second
    word's. channels, for maps with latent channels: `together` applies one threshold to their mean, `each` a threshold
    to every channel, `whole` one threshold to all channels; with the last two, a mask's value is the share of channels
    (0, 0.25 … 1) that are inside. Raises ValueError as `shape_mask`, and for an unknown choice.
    """
    one_of("channels", channels, CHANNELS_TO_MASK)
    maps = saliency.maps
    if maps.ndim == 5 and channels == "together":
        maps = maps.mean(2)
    shaping, scale = replace(shaping, across_channels=channels == "whole"), saliency.spatial_scale
    if separate:
        masks = mask_per_map(maps, shaping, saliency.labels, scale).flatten(0, 1)
    else:
        masks = shape_mask(maps, shaping, saliency.labels, spatial_scale=scale)
    return masks if masks.ndim == 3 else masks.mean(1)


def enlarge(masks: Tensor, scale: int) -> Tensor:
    """Masks [...,h,w] in picture pixels: every latent pixel becomes a square of `scale` × `scale`."""
    return masks.repeat_interleave(scale, -2).repeat_interleave(scale, -1)


def chosen_parts(inside: Tensor, shaping: Shaping, spatial_scale: int) -> Tensor:
    """The parts of boolean masks [N,h,w] or [N,C,h,w] that are kept, with their holes filled if that is asked for.

    Only `parts`, `part_count`, `points` and `fill_holes` of `shaping` count. spatial_scale: picture pixels per place.
    Raises ValueError where a mask, or one of its channels, has no part at any of the points.
    """
    if shaping.parts == LARGEST:
        inside = largest_parts(inside, shaping.part_count)
    elif shaping.parts == TOUCHING:
        h, w = inside.shape[-2:]
        points = read_points(shaping.points, (h * spatial_scale, w * spatial_scale))
        inside = parts_at(inside, points / spatial_scale)
        empty = [
            f"{at[0] + 1}" + (f" (channel {at[1] + 1})" if len(at) > 1 else "")
            for at in (~inside.flatten(-2).any(-1)).nonzero().tolist()
        ]
        if empty:
            raise ValueError(
                f"no part of mask {', '.join(empty)} of {len(inside)} is at the points "
                f"{shorten(shaping.points, 80)}: choose other points, or a rule or value that makes larger masks"
            )
    return fill_holes(inside) if shaping.fill_holes else inside


def _combined(maps: Tensor, shaping: Shaping, labels: tuple[str, ...]) -> Tensor:
    """The boolean mask of one layer's maps: [S,B,...] to [B,...]."""
    if shaping.combine == "sum":
        maps, labels = maps.sum(0, keepdim=True), (" + ".join(labels),)
    masks = _inside(maps, shaping, labels)
    return masks.all(0) if shaping.combine == "intersection" else masks.any(0)


def _inside(maps: Tensor, shaping: Shaping, labels: tuple[str, ...]) -> Tensor:
    """Boolean, of the shape of `maps`."""
    return above_threshold(maps, shaping.rule, shaping.value, labels, shaping.across_channels, shaping.flat_map)


def _filtered_before(maps: Tensor, shaping: Shaping) -> Tensor:
    return _filtered(maps, shaping) if shaping.smooth_and_dilate == BEFORE else maps


def _finished(inside: Tensor, shaping: Shaping, spatial_scale: int) -> Tensor:
    """A boolean mask [N,...,h,w] as float32: its parts chosen; filtered, where that comes now, and inverted."""
    mask = chosen_parts(inside, shaping, spatial_scale).float()
    if shaping.smooth_and_dilate == AFTER:
        mask = _filtered(mask, shaping).clamp(0, 1)  # the weights add up to 1 only within rounding
    return 1 - mask if shaping.invert else mask


def _filtered(maps: Tensor, shaping: Shaping) -> Tensor:
    smooth = gaussian_smooth(maps, shaping.smooth_sigma, shaping.smooth_size)
    return dilate(smooth, shaping.dilate_size, shaping.dilate_iterations)
