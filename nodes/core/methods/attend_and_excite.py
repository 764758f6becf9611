"""Attend-and-Excite: every word gets a place of the picture that looks at it (Chefer et al. 2023, arXiv 2301.13826).

A generated picture often lacks one of the things its prompt names, because no place attends to that word. The loss of a
word s is how far the highest peak of its smoothed attention map A_s is from 1, that of a picture its worst word's:

    L_s = max(0, 1 - max_p A_s[p]),   L = max_s L_s

A is the mean over heads and layers (those 4 times coarser than the latent), made comparable by a second softmax over
the tokens, of 100 times the probabilities, without the first and last token, and smoothed by a 3x3 Gaussian. While the
first half of a run is sampled the latent is moved down the gradient of L; at a few steps repeatedly, until the worst
word has reached a peak. Numbers are those of the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.aggregate import resize
from ..attention.refine import AUTO
from ..choices import one_of
from ..maps.filters import gaussian_smooth
from .guidance import COMPARED, GuidedTokens, Part, WordLosses

# The authors' refinement, see `guidance.Guidance`.
PUBLISHED_REFINEMENT = "0: 0.05, 10: 0.5, 20: 0.8"

# What stands for a word of several tokens: its last one, as published, or the mean of all.
LAST_TOKEN, ALL_TOKENS = TOKENS = ("last token", "mean of tokens")

# The code names the kernel's deviation 0.5, and divides the distance by twice that before it squares it: sqrt(0.5).
_SIGMA, _SIZE = 0.5**0.5, 3
_SHARPER = 100.0
_COARSER = 4


@dataclass(frozen=True)
class AttendAndExcite:
    """See above; an `AttentionLoss`. tokens: LAST_TOKEN or ALL_TOKENS. Raises ValueError for another choice."""

    tokens: str = LAST_TOKEN
    compared: str = AUTO

    each_head = features = False

    def __post_init__(self) -> None:
        one_of("tokens", self.tokens, TOKENS)
        one_of("compared_with", self.compared, COMPARED)

    def layers(self, scales: Mapping[str, int]) -> tuple[str, ...]:
        """See `AttentionLoss`."""
        return coarse_layers(scales)

    def of_words(
        self, maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor | None = None
    ) -> WordLosses:
        """See `AttentionLoss`: L_s and A_s; the worst word's loss remains."""
        found = word_maps(together(maps), tokens, self.tokens)
        losses = presence(found)
        return WordLosses(losses, found, self.of_picture(losses))

    def of_picture(self, losses: Tensor) -> Tensor:
        """See `AttentionLoss`: the worst word's."""
        return losses.amax(dim=0)


def coarse_layers(scales: Mapping[str, int]) -> tuple[str, ...]:
    """The layers 4 times coarser than the latent; the next finer ones of a model that has none, else the finest.

    scales: see `AttentionLoss`.
    """
    wanted = max((scale for scale in scales.values() if scale <= _COARSER), default=min(scales.values()))
    return tuple(name for name, scale in scales.items() if scale == wanted)


def together(maps: Sequence[Tensor]) -> Tensor:
    """The mean over heads and layers of maps [B,H,h,w,N], on the finest of their grids: [B,h,w,N]."""
    each = [layer.mean(dim=1) for layer in maps]
    grid = max((tuple(layer.shape[1:3]) for layer in each), key=lambda size: size[0] * size[1])
    return torch.stack([resize(layer.permute(0, 3, 1, 2), grid, "bilinear") for layer in each]).mean(0).movedim(1, -1)


def word_maps(probabilities: Tensor, tokens: GuidedTokens, of_several: str) -> Tensor:
    """The smoothed maps A_s [S,B,h,w] of the words, from probabilities [B,h,w,N] of tokens."""
    shares = second_softmax(probabilities, tokens.compared)
    places = {token: place for place, token in enumerate(tokens.compared)}
    counted = [word[-1:] if of_several == LAST_TOKEN else word for word in tokens.words]
    maps = [shares[..., [places[token] for token in word]].mean(dim=-1) for word in counted]
    return gaussian_smooth(torch.stack(maps), _SIGMA, _SIZE, "reflect")


def second_softmax(probabilities: Tensor, compared: Sequence[int]) -> Tensor:
    """softmax(100 P) over the `compared` tokens alone: [...,len(compared)] from P [...,N]."""
    return torch.softmax(_SHARPER * probabilities[..., list(compared)], dim=-1)


def presence(maps: Tensor) -> Tensor:
    """How much each word lacks a place: 1 minus the peak of its map, [S,B] from maps [S,B,h,w]."""
    return (1 - maps.amax(dim=(-2, -1))).clamp_min(0)
