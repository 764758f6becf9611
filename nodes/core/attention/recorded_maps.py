"""Attention to tokens as a function that autograd differentiates: see `probabilities` for reading it without."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from .heads import by_head, width
from .probabilities import mask_of_queries


def recorded_attention(
    q: Tensor,
    k: Tensor,
    heads: int,
    columns: Tensor,
    *,
    each_head: bool,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """P = softmax(q k^T * scale + mask) @ columns of every head, or their mean: [B,H or 1,Q,N], at least float32.

    q: [B,Q,H*d] or [B,H,Q,d], k: [B,T,H*d] or [B,H,T,d], see `heads`. columns: [T,N], 1 where key t is of token n.
    mask, scale: see `probabilities.probabilities`. Autograd keeps q and k only, and computes P again when it needs it:
    the probabilities of all layers of a large network would take more memory than all else.
    """

    def attention(q: Tensor, k: Tensor) -> Tensor:
        precision = torch.promote_types(q.dtype, torch.float32)
        d = width(q, heads)
        queries, keys = by_head(q, d).to(precision), by_head(k, d).to(precision)
        scores = queries @ keys.transpose(-1, -2) * (d**-0.5 if scale is None else scale)
        if mask is not None:
            own = mask_of_queries(mask, slice(None))
            scores = scores.masked_fill(~own, -torch.inf) if own.dtype == torch.bool else scores + own.to(scores)
        shares = torch.softmax(scores, dim=-1) @ columns.to(scores)
        return shares if each_head else shares.mean(dim=1, keepdim=True)

    return checkpoint(attention, q, k, use_reentrant=False, preserve_rng_state=False)
