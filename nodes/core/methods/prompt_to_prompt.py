"""Prompt-to-Prompt: a target prompt's picture gets the attention of a source prompt's (Hertz et al. 2022).

While a source and a target picture are made side by side, the target's attention probabilities P_t are replaced in its
cross-attention layers for the first part of the steps:

    P' = α∘e∘(a∘P̂ + (1 - a)∘P_t) + (1 - α)∘P_t,   P̂ = P_s M,   output P' V_t

M says which source tokens stand for a target token, a which target tokens have a partner, α ∈ {0,1} which are replaced
at this step, e is the weight of each. P' is linear in P_s and P_t, so no probability has to be written down
(`value_weights`): P' V_t = attention(q_s, k_s, A V_t) + attention(q_t, k_t, D∘V_t). In self-attention layers on coarse
grids P_t is replaced by P_s whole, for a window of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..words.alignment import Alignment


@dataclass(frozen=True)
class Window:
    """A part of a run, from `start` to `end`, 0 its beginning and 1 its end. Raises ValueError for another range."""

    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= 1:
            raise ValueError(
                f"the window from {self.start:g} to {self.end:g} is no part of a run: it must satisfy "
                "0 <= start <= end <= 1, where 0 is the first step and 1 the end"
            )

    def includes(self, step: int, length: int) -> bool:
        """Whether it holds `step` of a run counted in `length` parts: int(start·length) <= step < int(end·length)."""
        return int(self.start * length) <= step < int(self.end * length)


@dataclass(frozen=True)
class PromptToPrompt:
    """What is replaced, and when.

    alignment: of the two prompts' tokens. cross: when cross-attention is replaced; windows: for target tokens that have
    a window of their own. weights: e of target tokens, 1 for the others; a token counts with it where it is replaced.
    self_attention: when self-attention is replaced, in layers that are at least `coarser` times coarser than the latent
    (4: up to 16x16 of 64x64). Windows count the steps that are run, as published: cross-attention of N + 1, so that 1
    is the whole run, self-attention of N.
    """

    alignment: Alignment
    cross: Window = Window(0.0, 0.8)
    windows: Mapping[int, Window] = field(default_factory=dict)
    weights: Mapping[int, float] = field(default_factory=dict)
    self_attention: Window = Window(0.0, 0.4)
    coarser: int = 4

    def replaced(self, step: int, steps: int) -> Tensor:
        """α [K_t]: 1 for target tokens whose attention is replaced at `step` of a run of `steps`."""
        windows = [self.windows.get(j, self.cross) for j in range(self.alignment.lengths[1])]
        return torch.tensor([float(window.includes(step, steps + 1)) for window in windows])

    def terms(self, step: int, steps: int) -> tuple[Tensor, Tensor] | None:
        """See `value_weights`; None at a step at which nothing is replaced."""
        alpha = self.replaced(step, steps)
        if not alpha.any():
            return None
        weights = torch.ones_like(alpha)
        for j, weight in self.weights.items():
            weights[j] = weight
        return value_weights(self.alignment, alpha, weights)

    def replaces_self_attention(self, step: int, steps: int) -> bool:
        """Whether self-attention is replaced at `step` of a run of `steps`."""
        return self.self_attention.includes(step, steps)

    def is_coarse(self, grid: tuple[int, int], latent: tuple[int, int]) -> bool:
        """Whether a layer on `grid` is coarse enough for its self-attention to be replaced. latent: its (h, w)."""
        return all(round(side / cells) >= self.coarser for side, cells in zip(latent, grid, strict=True))


def value_weights(alignment: Alignment, replaced: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What the target's values are multiplied with: A [K_s,K_t] for the source's attention, D [K_t] for its own.

    A = M diag(α a e), D = 1 - α + α e (1 - a). replaced: α [K_t]; weights: e [K_t].
    """
    matrix = torch.zeros(alignment.lengths)
    for i, j, share in alignment.shares:
        matrix[i, j] += share
    partner = torch.ones_like(replaced)
    partner[list(alignment.own)] = 0.0
    return matrix * (replaced * partner * weights), 1 - replaced + replaced * weights * (1 - partner)


def source_values(values: Tensor, weights: Tensor, keys: int) -> Tensor:
    """The values [B,K,d] of the source's keys with which its attention becomes the target's: A V_t.

    values: V_t [B,K,d], of the target's tokens, repeated where K is longer. weights: A [K_s,K_t]. keys: K, a multiple
    of K_s and of K_t: a source token's attention is the sum over its copies.
    """
    length, own = weights.shape
    first = values[:, :own]
    if length == own and torch.equal(weights, torch.eye(length)):
        return first.repeat(1, keys // length, 1)
    moved = weights.to(device=values.device, dtype=values.dtype) @ first
    return moved.repeat(1, keys // length, 1)


def own_values(values: Tensor, weights: Tensor) -> Tensor:
    """D∘V_t [B,K,d]; weights: D [K_t], repeated where K is longer."""
    repeated = weights.repeat(values.shape[1] // len(weights))
    return values * repeated.to(device=values.device, dtype=values.dtype).unsqueeze(-1)
