"""Where words' things are, how large, of which shape and appearance: see `self_guidance`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.aggregate import resize
from .guidance import GuidedTokens, Part

# Slope of the soft threshold in the middle of a map's range.
_SLOPE = 10.0


@dataclass(frozen=True)
class Properties:
    """Of S words in B pictures, in one layer: see above.

    centres: x and y in the whole picture [S,B,2]. sizes: as a share of it [S,B]. shapes: [S,B,h,w]. appearances: of C
    features [S,B,C], where these were given.
    """

    centres: Tensor
    sizes: Tensor
    shapes: Tensor
    appearances: Tensor | None = None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that there are."""
        own = self.centres, self.sizes, self.shapes
        return own if self.appearances is None else (*own, self.appearances)

    def to(self, other: Tensor) -> Properties:
        """On the device and in the precision of another tensor."""
        return Properties(*(each.to(other) for each in self.tensors))


def properties(
    maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor | None = None
) -> list[Properties]:
    """Those of the words in every layer, of attention maps [B,H,h,w,N] each. part: what they are maps of.

    features: of the same part, [B,C,h,w] on any grid.
    """
    share = math.prod(part.size) / math.prod(part.grid)
    found = []
    for layer in maps:
        shapes = shape(of_tokens(layer.mean(dim=1), tokens))
        seen = None if features is None else appearance(features, shapes)
        found.append(Properties(centroid(shapes, part), shapes.mean(dim=(-2, -1)) * share, shapes, seen))
    return found


def centroid(maps: Tensor, part: Part) -> Tensor:
    """The centre of mass of maps [...,h,w], as shares of the whole picture's width and height: [...,2], x first.

    Not a number where a map is 0 everywhere, as the shape of a constant one is.
    """
    axes = []
    for dim, start, length, whole in zip((-1, -2), part.offset[::-1], part.size[::-1], part.grid[::-1], strict=True):
        count = maps.shape[dim]
        middles = (torch.arange(count, device=maps.device, dtype=maps.dtype) + 0.5) / count
        mass = maps.sum(dim=-3 - dim)
        axes.append((mass * (start + middles * length) / whole).sum(-1) / mass.sum(-1))
    return torch.stack(axes, dim=-1)


def shape(maps: Tensor) -> Tensor:
    """The soft threshold of maps [...,h,w] in the middle of their range, from 0 to 1; 0 where a map is constant."""
    return _ranged(torch.sigmoid(_SLOPE * (_ranged(maps) - 0.5)))


def appearance(features: Tensor, shapes: Tensor) -> Tensor:
    """The mean of features [B,C,h,w] under each word's shape [S,B,...], which is constant for gradients: [S,B,C].

    Shapes are brought to the features' grid. Not a number where a shape is 0 everywhere.
    """
    weights = resize(shapes.detach(), tuple(features.shape[-2:]), "bilinear").to(features)
    return torch.einsum("sbhw,bchw->sbc", weights, features) / weights.sum(dim=(-2, -1))[..., None]


def carried(shapes: Tensor, centre: Tensor, shift: Tensor, larger: Tensor, part: Part) -> Tensor:
    """Shapes [S,B,h,w] moved by `shift` [S,B,2] and made `larger` [S,B] times (in area) about their `centre` [S,B,2].

    Centre and shift are shares of the whole picture, x first. Bilinear; what comes from outside is 0; bit for bit the
    same where nothing is asked.
    """
    frame, start = (shift.new_tensor(each[::-1]) for each in (part.grid, part.offset))
    size = shift.new_tensor(part.size[::-1])
    own, by, width = (centre * frame - start) / size, shift * frame / size, larger.sqrt()[..., None]
    # A place q of the part shows what was at own + (q - own - by) / width; torch wants it for q from -1 to 1.
    offset = 1 / width + 2 * own - 2 * (own + by) / width - 1
    turned = torch.diag_embed((1 / width).expand_as(offset))
    affine = torch.cat([turned, offset[..., None]], dim=-1).flatten(0, 1)
    flat = shapes.flatten(0, 1)[:, None]
    places = F.affine_grid(affine, list(flat.shape), align_corners=False)
    moved = F.grid_sample(flat, places, align_corners=False)[:, 0].view_as(shapes)
    same = ((shift == 0).all(-1) & (larger == 1))[..., None, None]
    return torch.where(same, shapes, moved)


def _ranged(maps: Tensor) -> Tensor:
    """Each map [...,h,w] brought to the range from 0 to 1."""
    low, high = (bound(dim=(-2, -1), keepdim=True) for bound in (maps.amin, maps.amax))
    return (maps - low) / torch.where(high > low, high - low, torch.ones_like(high))


def of_tokens(maps: Tensor, tokens: GuidedTokens) -> Tensor:
    """The maps [S,B,h,w] of words, the mean of their tokens', from those of tokens [B,h,w,N]."""
    return torch.stack([maps[..., list(word)].mean(-1) for word in tokens.words])


def averaged(noted: Sequence[Properties]) -> Properties:
    """The mean of several."""
    if len(noted) == 1:
        return noted[0]
    return Properties(*(torch.stack(each).mean(0) for each in zip(*(one.tensors for one in noted), strict=True)))
