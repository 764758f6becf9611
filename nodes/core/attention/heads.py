"""The two forms in which models hand queries, keys and values to an attention.

joined: [B,L,H*d], one head's channels after the other's. by head: [B,H,L,d], of keys and values also with fewer heads,
each of which serves several of the queries' (grouped-query attention). In both the positions L come last but one.
"""

from __future__ import annotations

from torch import Tensor


def by_head(x: Tensor, d: int) -> Tensor:
    """A tensor of either form as [B,h,L,d]: a view."""
    return x if x.ndim == 4 else x.unflatten(-1, (-1, d)).transpose(1, 2)


def joined(x: Tensor, heads: int) -> Tensor:
    """A tensor of either form as [B,L,H*d]: a copy if it is [B,h,L,d].

    heads: H; where h is less, each of its heads is repeated H/h times, beside itself.
    """
    if x.ndim == 3:
        return x
    if x.shape[1] != heads:
        x = x.repeat_interleave(heads // x.shape[1], dim=1)
    return x.transpose(1, 2).flatten(2)


def width(q: Tensor, heads: int) -> int:
    """The channels d of a head of queries of either form."""
    return q.shape[-1] if q.ndim == 4 else q.shape[-1] // heads
