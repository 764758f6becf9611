"""Cross-Image Attention: the appearance of one picture on the structure of another (Alaluf et al. 2023).

The target's queries find the keys and values of the appearance (see `appearance` for when and where), and the
probabilities P over the K keys get more contrast, so that each place takes from a few places rather than from many:

    O = P' v_a,   P = softmax(q_t k_a^T),   P' = clip(βP - (β - 1)/K, 0, 1)

Rows of P' are not normalised again.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..attention.heads import by_head, joined, width
from ..attention.probabilities import KEPT_AT_ONCE, probabilities
from .appearance import AppearanceTransfer


@dataclass(frozen=True)
class CrossImageAttention(AppearanceTransfer):
    """When and how. contrast: β, 1 for none. Published: 1.67, and a guidance of 3.5.

    Raises ValueError for a contrast below 1, and as `AppearanceTransfer`.
    """

    contrast: float

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contrast < 1:
            raise ValueError(f"contrast is {self.contrast:g}, but it must be 1 (as attention is) or more")


def contrasted_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    heads: int,
    contrast: float,
    scale: float | None = None,
) -> Tensor:
    """Attention P'v, in the form and type of q, whose probabilities have the contrast β; a few queries at a time.

    q: [B,Q,H*d] or [B,H,Q,d]; k, v: [B,K,H*d] or [B,h,K,d], see `attention.heads`. mask, scale: see `probabilities`.
    """
    values, shift = by_head(v, width(v, heads)).float(), (contrast - 1) / k.shape[-2]
    values = values.repeat_interleave(heads // values.shape[1], dim=1)
    parts = []
    for _, p in probabilities(q, k, heads, KEPT_AT_ONCE, mask=mask, scale=scale):
        parts.append(p.mul_(contrast).sub_(shift).clamp_(0, 1) @ values)
        del p  # else it would take memory beside the next
    out = torch.cat(parts, dim=-2).to(q)
    return out if q.ndim == 4 else joined(out, heads)
