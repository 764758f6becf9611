"""DenseDiffusion: phrases of a prompt in given segments of the picture (Kim et al. 2023).

s are the scores of a query q of the picture in one head, M and μ their maximum and minimum over the keys, and R says
which keys belong to the place of q: in cross-attention the tokens of the phrases in whose segments it lies, in
self-attention the places that share a segment with it. With c = w λ r,

    s' = s + c [R (M - s) - (1 - R) (s - μ)]        (equations 4 to 6)
    λ = (t / 1000)^5,    r = 1 - size · (the share of the picture that R has in self-attention)

where w is the strength and t the timestep of the noise level. Written with Δ = M - μ this is

    s' = (1 - c) s + c Δ R + (the same for all keys, which the softmax does not see)

so that the attention can be left to any fused kernel: q becomes (1 - c) q, and c Δ R is the product of further columns.
Places that lie in the same segments form a group; a column for each group holds c Δ for the queries of the group and R
for the keys. Segments may overlap: R is 1 for what shares any of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..attention.heads import by_head, joined, width
from ..attention.probabilities import SUMMED_AT_ONCE, masked_scores, positions_at_once, scaled_keys
from ..choices import one_of
from .prompt_to_prompt import Window

# What happens at places that lie in no segment: nothing, or what the equations say, by which their scores shrink.
AS_IT_IS, FLATTENED = ELSEWHERE = ("as it is", "flattened")

PUBLISHED_WINDOW = Window(0.0, 0.3)

# Kernels want heads of a multiple of so many channels.
_CHANNELS = 8


@dataclass(frozen=True)
class DenseDiffusion:
    """How strongly, and when. cross, own: w in cross- and in self-attention, 0 to 2; size: 0 to 1.

    Published: 1, 0.3 and 1, in the first 30 % of the steps, with layouts that cover the whole picture. Raises
    ValueError for numbers outside of these ranges, and for another choice of `elsewhere`.
    """

    cross: float = 1.0
    own: float = 0.3
    size: float = 1.0
    window: Window = PUBLISHED_WINDOW
    elsewhere: str = AS_IT_IS

    def __post_init__(self) -> None:
        for name, value, most in (
            ("cross_strength", self.cross, 2),
            ("self_strength", self.own, 2),
            ("size_regularisation", self.size, 1),
        ):
            if not 0 <= value <= most:
                raise ValueError(f"{name} is {value:g}, but it must lie between 0 (off) and {most}")
        one_of("elsewhere", self.elsewhere, ELSEWHERE)

    @property
    def is_off(self) -> bool:
        """Whether it changes nothing, ever."""
        return self.cross == self.own == 0


@dataclass(frozen=True)
class Segments:
    """Which places of a layer's grid belong together, on the CPU.

    inside: bool [S,Q], the places of each segment. members: bool [Q,G], which group of places each belongs to, none
    where it lies in no segment; of_group: bool [G,S], in which segments a group lies.
    """

    inside: Tensor
    members: Tensor
    of_group: Tensor

    @classmethod
    def of(cls, inside: Tensor) -> Segments:
        """Of the places of each segment, bool [S,Q] or [S,h,w]."""
        inside = inside.flatten(1)
        kinds, number = torch.unique(inside.T, dim=0, return_inverse=True)
        lies = kinds.any(1)
        return cls(inside, F.one_hot(number, len(kinds)).bool()[:, lies], kinds[lies])

    @property
    def places(self) -> Tensor:
        """R of self-attention for the places of each group, bool [G,Q]."""
        return self.of_group.float() @ self.inside.float() > 0

    def tokens(self, columns: Tensor) -> Tensor:
        """R of cross-attention for the places of each group, bool [G,T]. columns: 1 at the segments' tokens [T,S]."""
        return self.of_group.float() @ columns.T.float() > 0

    def amounts(self, strength: float, method: DenseDiffusion) -> Tensor:
        """c of every place, float32 [Q]. strength: w λ."""
        size = 1 - method.size * self.places.float().mean(1)
        inside = self.members.any(1)
        outside = 1.0 if method.elsewhere == FLATTENED else 0.0
        return strength * torch.where(inside, self.members.float() @ size, torch.full((len(inside),), outside))


def falling(timestep: float) -> float:
    """λ at a timestep from 999 (noise) to 0."""
    return max(0.0, timestep / 1000) ** 5


def score_range(q: Tensor, k: Tensor, heads: int, scale: float | None = None) -> Tensor:
    """Δ, the maximum less the minimum over all keys of the scores of every query: float32 [B,H,Q].

    q, k, heads, scale: see `probabilities`. A few positions at a time; the scores are never kept.
    """
    q = by_head(q, width(q, heads))
    keys = scaled_keys(k, q.shape[-1], scale)
    parts = []
    for start in range(0, q.shape[-2], step := positions_at_once(q, k, SUMMED_AT_ONCE)):
        rows = slice(start, start + step)
        low, high = masked_scores(q[:, :, rows], keys, None, rows).aminmax(dim=-1)
        parts.append(high - low)
    return torch.cat(parts, dim=-1)


def modulated_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    attend: Callable[[Tensor, Tensor, Tensor], Tensor],
    heads: int,
    amounts: Tensor,
    members: Tensor,
    shared: Tensor,
    scale: float | None = None,
) -> Tensor:
    """Attention by s' with the softmax of `attend`, in the form and type of q.

    q: [B,Q,H*d]; k, v: [B,K,H*d]. mask: has to be None. attend: attention of (q, k, v) in that form; its scale is
    `scale`, or without one that of the width of the heads it is given. amounts: c [Q]. members: [Q,G], see `Segments`.
    shared: R [G,K] of the groups.
    """
    if mask is not None:
        raise ValueError("scores that a mask was added to have no range that could be modulated")
    d = width(q, heads)
    unit = d**-0.5 if scale is None else scale
    c, members, shared = (each.to(device=q.device, dtype=torch.float32) for each in (amounts, members, shared))
    bias = (c * score_range(q, k, heads, scale)).unsqueeze(-1) * members / unit
    # a second column has what half precision rounds off the first
    copies = 1 if q.dtype == torch.float32 else 2
    wide = -(-(d + copies * members.shape[1]) // _CHANNELS) * _CHANNELS
    factor = 1.0 if scale is not None else (wide / d) ** 0.5
    first = (factor * bias).to(q.dtype)
    columns = [first] if copies == 1 else [first, (factor * bias - first.float()).to(q.dtype)]
    queries = (factor * (1 - c).unsqueeze(-1) * by_head(q, d).float()).to(q.dtype)
    of_keys = shared.T.to(k.dtype).expand(len(k), heads, -1, -1)
    out = attend(
        _wide([queries, *columns], wide),
        _wide([by_head(k, d)] + [of_keys] * copies, wide),
        _wide([by_head(v, d)], wide),
    )
    return joined(by_head(out, wide)[..., :d], heads)


def _wide(parts: list[Tensor], wide: int) -> Tensor:
    """Parts [B,H,L,...] beside each other and zeros behind them, [B,L,H*wide]."""
    found = torch.cat(parts, dim=-1)
    return joined(F.pad(found, (0, wide - found.shape[-1])), found.shape[1])
