"""Rows of an attention whose output is mixed with that of attention to other texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Mixture:
    """Some rows' output becomes own·output + Σ share·attention(q, k, v), place by place.

    rows: their numbers [B]. q: [B,Q,...] what the other texts are asked by. own: [B,Q], the share of the rows' own
    output. others: the share [B,Q] of each text, and its keys and values [B,N,...] in the call's form.
    """

    rows: Tensor
    q: Tensor
    own: Tensor
    others: tuple[tuple[Tensor, Tensor, Tensor], ...]

    def mixed(self, out: Tensor, compute: Callable[..., Tensor], every: Tensor | None) -> Tensor:
        """The output [R,...] with these rows mixed; where a share is 1 and the others 0, it has that one's bits.

        compute: attention of (q, k, v, mask). every: the queries of all rows, where another node's function computes
        attention: it counts rows, so it gets all of them, and no mask.
        """
        total = _by_query(self.own, out) * out[self.rows].float()
        for share, k, v in self.others:
            if every is None:
                part = compute(self.q, k, v, None)
            else:
                k, v = (x.new_zeros(len(every), *x.shape[1:]).index_copy(0, self.rows, x) for x in (k, v))
                part = compute(every, k, v)[self.rows]
            total = total + _by_query(share, out) * part.float()
        return out.index_copy(0, self.rows, total.to(out))


def _by_query(share: Tensor, out: Tensor) -> Tensor:
    """A share [B,Q], to be multiplied with an output [B,Q,H*d] or [B,H,Q,d]."""
    return share.unsqueeze(-1) if out.ndim == 3 else share[:, None, :, None]
