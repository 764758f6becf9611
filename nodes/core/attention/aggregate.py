"""Maps of several layers and conditionings brought into one frame (Experiment 1 of the source documents)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..choices import one_of

RESIZE_MODES = ("nearest", "bilinear")


def resize(maps: Tensor, grid: tuple[int, int], mode: str = "nearest") -> Tensor:
    """Maps [S,B,h',w'] on another grid: [S,B,*grid]. mode: nearest (as published) or bilinear (half-pixel centres)."""
    one_of("resize", mode, RESIZE_MODES)
    if maps.shape[-2:] == torch.Size(grid):
        return maps
    return F.interpolate(maps, size=tuple(grid), mode=mode)


def normalise(maps: Tensor, scores: int = 0) -> Tensor:
    """Each map [...,h,w] divided by its sum; a map that is zero everywhere stays zero.

    scores: so many maps [S,B,h,w], the last ones, are scores, of which only differences mean anything: they are taken
    above each map's smallest value.
    """
    if scores:
        plain, raw = maps.split([len(maps) - scores, scores])
        maps = torch.cat([plain, raw - raw.amin(dim=(-2, -1), keepdim=True)])
    total = maps.sum(dim=(-2, -1), keepdim=True)
    return torch.where(total > 0, maps / total, torch.zeros_like(maps))


def added(layer_maps: Sequence[Tensor], grid: tuple[int, int], mode: str = "nearest") -> Tensor:
    """The layers' maps [S,B,h_n,w_n] resized to `grid` and added: [S,B,*grid]."""
    return torch.stack([resize(maps, grid, mode) for maps in layer_maps]).sum(dim=0)


def aggregate(layer_maps: Sequence[Tensor], grid: tuple[int, int], mode: str = "nearest", scores: int = 0) -> Tensor:
    """Aggregated attention map: layers resized to the latent grid, added, normalised to sum 1.

    A_s = sum_n resize(sum_h sum_{t in T_s} P_n[h,:,t]);  A_s / sum_ij A_s[i,j]   (Experiment 1).
    layer_maps: [S,B,h_n,w_n] each, already summed over heads and tokens. grid: (h, w) of the latent. scores: see
    `normalise`. Returns [S,B,h,w].
    Raises ValueError when there is no layer.
    """
    if not layer_maps:
        raise ValueError("no cross-attention layer to aggregate")
    return normalise(added(layer_maps, grid, mode), scores)


def on_latent(maps: Tensor, patch: tuple[int, int] | None, size: tuple[int, int]) -> Tensor:
    """Maps [...,h',w'] of places that stand for `patch` (h, w) pixels of a latent of this size each.

    Where the size is no multiple of the patch the last places reach beyond it: [...,*size], each value repeated and
    what is outside cut off, so that nothing is shifted. Else, and without a patch, the maps as they are, for `resize`.
    """
    if patch is None or all(n * p == whole for n, p, whole in zip(maps.shape[-2:], patch, size, strict=True)):
        return maps
    h, w = size
    return maps.repeat_interleave(patch[0], dim=-2).repeat_interleave(patch[1], dim=-1)[..., :h, :w]


@dataclass(frozen=True)
class PlacedMaps:
    """What one conditioning contributes to the frame.

    maps: [S,B,a,b]. offset: (y, x) of its corner in the frame. weight: how much it counts, a number or [B,a,b].
    """

    maps: Tensor
    offset: tuple[int, int]
    weight: Tensor | float


def compose(placed: Sequence[PlacedMaps], grid: tuple[int, int]) -> Tensor:
    """Put the maps of several conditionings (areas, masks) into one frame: [S,B,*grid].

    frame[y,x] = sum_i weight_i maps_i / sum_i weight_i, the rule by which a host mixes the predictions of the same
    conditionings; 0 where there is none.
    """
    first = placed[0].maps
    total = first.new_zeros((*first.shape[:2], *grid))
    weights = first.new_zeros((first.shape[1], *grid))
    for each in placed:
        (y, x), (a, b) = each.offset, each.maps.shape[-2:]
        total[..., y : y + a, x : x + b] += each.maps * each.weight
        weights[..., y : y + a, x : x + b] += each.weight
    return torch.where(weights > 0, total / weights, torch.zeros_like(total))
