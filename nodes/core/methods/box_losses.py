"""Words in their places: losses on attention inside and outside of boxes or masks.

Three papers guide a picture so that each word's thing is where it was asked for. A: attention map of a word, b: 1 at
the places inside of its box, 0 elsewhere.

    box share (layout guidance: Chen, Laina, Vedaldi 2024, arXiv 2304.03373), of every head
        E = (1 - Σ A b / Σ A)²
    top values (LLM-grounded diffusion: Lian et al. 2024, arXiv 2305.13655), of every head
        E = w_in (1 - mean of the 20 % largest A inside) + w_out · mean of the 20 % largest A outside
    BoxDiff (Xie et al. 2023, arXiv 2307.10816), of the smoothed map of Attend-and-Excite
        E = (1 - mean of the 20 % largest A inside) + mean of the 20 % largest outside + corners; corners, of each axis:
        the mean of |largest A on a line across - whether the box is there| at the lines next to the box's ends

The loss of a picture is the sum over its words; the first two are divided by their number, and averaged over layers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.refine import AUTO
from ..choices import one_of
from .attend_and_excite import LAST_TOKEN, coarse_layers, together, word_maps
from .guidance import GuidedTokens, Part, WordLosses
from .word_places import Places, inside

BOX_SHARE, TOP_VALUES, BOX_DIFF = LOSSES = ("box share", "top values", "BoxDiff")

# The share of the places inside, and of those outside, whose attention counts.
_TOP = 0.2
# How many lines on either side of a box's end (its first line, and the first behind it) count for its corners.
_REACH = 1


@dataclass(frozen=True)
class BoxLoss:
    """See above; an `AttentionLoss`. places: of the words. kind: of `LOSSES`.

    inside_weight, outside_weight: of the terms of top values and BoxDiff. edge_weight: of BoxDiff's corners. Raises
    ValueError for another kind, or a weight below 0.
    """

    places: Places
    kind: str = BOX_SHARE
    inside_weight: float = 1.0
    outside_weight: float = 1.0
    edge_weight: float = 1.0

    features = False

    def __post_init__(self) -> None:
        one_of("loss", self.kind, LOSSES)
        for name in ("inside_weight", "outside_weight", "edge_weight"):
            if not 0 <= (weight := getattr(self, name)) < math.inf:
                raise ValueError(f"{name} {weight} must be 0 (without this part of the loss) or a positive number")

    @property
    def each_head(self) -> bool:
        """See `AttentionLoss`."""
        return self.kind != BOX_DIFF

    @property
    def compared(self) -> str | None:
        """See `AttentionLoss`."""
        return AUTO if self.kind == BOX_DIFF else None

    def layers(self, scales: Mapping[str, int]) -> tuple[str, ...]:
        """See `AttentionLoss`: the middle and the decoder's first block with attention; BoxDiff: the coarse ones."""
        if self.kind == BOX_DIFF:
            return coarse_layers(scales)
        decoder = [name for name in scales if name.startswith("output.")]
        first = [name for name in decoder if scales[name] == scales[decoder[0]]]
        return (*(name for name in scales if name.startswith("middle.")), *first)

    def of_words(
        self, maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor | None = None
    ) -> WordLosses:
        """See `AttentionLoss`; BoxDiff repeats until the inside of the worst word is attended to, others by the loss.

        A word whose place is outside of the part has all of it outside.
        """
        if self.kind == BOX_DIFF:
            found = word_maps(together(maps), tokens, LAST_TOKEN)
            owned = inside(self.places, tuple(found.shape[-2:]), part).to(found.device)
            terms = [self._box_diff(word, own) for word, own in zip(found, owned, strict=True)]
            losses, within = (torch.stack(each) for each in zip(*terms, strict=True))
            return WordLosses(losses, found, within.amax(dim=0))
        losses = torch.stack([self._of_layer(layer, tokens, part) for layer in maps]).mean(0)
        whole = together(maps)
        of_words = torch.stack([whole[..., list(word)].mean(-1) for word in tokens.words])
        return WordLosses(losses, of_words, self.of_picture(losses))

    def of_picture(self, losses: Tensor) -> Tensor:
        """See `AttentionLoss`."""
        return losses.sum(0) if self.kind == BOX_DIFF else losses.mean(0)

    def _of_layer(self, layer: Tensor, tokens: GuidedTokens, part: Part) -> Tensor:
        """The losses [S,B] of a layer's attention [B,H,h,w,N]."""
        owned = inside(self.places, tuple(layer.shape[2:4]), part).to(layer.device)
        of_words = []
        for word, own in zip(tokens.words, owned, strict=True):
            attention = layer[..., list(word)].movedim(-1, 2)  # [B,H,tokens,h,w]
            if self.kind == BOX_SHARE:
                of_words.append((1 - box_share(attention, own)).square().mean(dim=(1, 2)))
            else:
                within, without = top_values(attention, own), top_values(attention, ~own)
                terms = self.inside_weight * (1 - within) + self.outside_weight * without
                of_words.append(terms.mean(2).sum(1))
        return torch.stack(of_words)

    def _box_diff(self, attention: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
        """The loss [B] of a word's map [B,h,w], and that of its inside alone."""
        within = (1 - top_values(attention, own)).clamp_min(0)
        corners = corner_loss(attention, own, -1) + corner_loss(attention, own, -2)
        outside = self.outside_weight * top_values(attention, ~own)
        return self.inside_weight * within + outside + self.edge_weight * corners, within


def box_share(attention: Tensor, own: Tensor) -> Tensor:
    """How much of the attention [...,h,w] is at a word's own places [h,w]: [...] from 0 to 1."""
    return (attention * own).sum(dim=(-2, -1)) / attention.sum(dim=(-2, -1))


def top_values(attention: Tensor, places: Tensor) -> Tensor:
    """The mean of the 20 % largest attention [...,h,w] at the places [h,w], of at least one: [...]; 0 without any."""
    there = attention[..., places]
    if not there.shape[-1]:
        return there.sum(-1)
    return there.topk(max(1, int(_TOP * there.shape[-1])), dim=-1).values.mean(-1)


def corner_loss(attention: Tensor, own: Tensor, dim: int) -> Tensor:
    """BoxDiff's corner term along an axis (-1: columns, -2: rows): [B] of maps [B,h,w]; 0 where no place is `own`."""
    other = -2 if dim == -1 else -1
    lines, there = attention.amax(dim=other), own.any(dim=other).to(attention)
    covered = torch.nonzero(there)[:, 0].tolist()
    counted = torch.zeros_like(there)
    for end in (covered[0], covered[-1] + 1) if covered else ():
        counted[max(0, end - _REACH) : end + _REACH + 1] = 1
    return ((lines - there).abs() * counted).mean(-1)
