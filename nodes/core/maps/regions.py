"""Regions of a picture: their masks, largest first, the word that each one shows, and their colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from .colours import distinct_colours


@dataclass(frozen=True)
class Regions:
    """The regions of one picture, numbered from 0, the largest first.

    labels: the region of every pixel, int64 [H,W]. areas: pixels of each region, none without. names: the word of each,
    or none at all.
    """

    labels: Tensor
    areas: tuple[int, ...]
    names: tuple[str, ...] = ()

    def masks(self) -> Tensor:
        """A mask for each region: float32 [R,H,W] of 0 and 1, each pixel inside one of them."""
        numbers = torch.arange(len(self.areas), device=self.labels.device)
        return (self.labels == numbers[:, None, None]).float()

    def picture(self) -> Tensor:
        """Each region in a colour of its own: float32 [H,W,3]."""
        return distinct_colours(len(self.areas)).to(self.labels.device)[self.labels]

    def lines(self) -> list[str]:
        """Of each region the name, if it has one, the share of the picture, and the colour: `dog, 12.5%, #d27461`."""
        colours = (distinct_colours(len(self.areas)) * 255).round().int().tolist()
        names = [f"{name}, " for name in self.names] or [""] * len(self.areas)
        whole = self.labels.numel()
        return [
            f"{name}{area / whole:.1%}, #{red:02x}{green:02x}{blue:02x}"
            for name, area, (red, green, blue) in zip(names, self.areas, colours, strict=True)
        ]


def regions_of(labels: Tensor) -> Regions:
    """The regions of a label map, whole numbers from 0, [H,W]: those that have pixels, in falling order of their area.

    Of equally large ones the one with the lower number comes first.
    """
    counts = torch.bincount(labels.flatten().cpu())
    areas, order = counts.sort(descending=True, stable=True)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return Regions(rank.to(labels.device)[labels], tuple(areas[areas > 0].tolist()))


def named(regions: Regions, maps: Tensor, words: Sequence[str]) -> Regions:
    """The regions with names: each takes the word whose map is strongest in it.

    maps: of the `words`, float [S,h,w]. Enlarged to the picture and divided by the root of the sum of its squares, so
    that words that get more attention everywhere do not win everywhere, a map's strength is its mean in the region; the
    first of equals counts. As in DiffSeg's code, voting by the mean.
    """
    size = regions.labels.shape
    maps = F.interpolate(maps.float().unsqueeze(1), size=size, mode="bilinear").flatten(1)
    maps = maps / maps.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    inside = regions.masks().to(maps).flatten(1)
    strength = maps @ inside.T / inside.sum(1)
    return replace(regions, names=tuple(words[i] for i in strength.argmax(0).tolist()))
