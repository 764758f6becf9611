"""One attention as the network computes it, and the base class of what observes or edits it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...core.attention.heads import by_head, joined, width
from ...core.attention.probabilities import mask_of_queries, token_probabilities
from ..families.sites import CROSS, Inputs, Site
from .mixture import Mixture

# Attention as the user's backend computes it: (q, k, v) in the call's own form and a mask to its output [R,Q,H*d].
Attend = Callable[..., Tensor]


@dataclass(frozen=True)
class EditedRow:
    """What an editor replaced in one row: [1,...] in the call's form each, mask [1,1 or H,Q,K]; None for its own."""

    q: Tensor | None = None
    k: Tensor | None = None
    v: Tensor | None = None
    mask: Tensor | None = None


@dataclass(frozen=True)
class Change:
    """A change [B,H,Q,N] of the probabilities of `tokens` [N], in these rows."""

    rows: Tensor
    tokens: Tensor
    amount: Tensor


@dataclass(frozen=True)
class Added:
    """A further attention, whose output is added to that of these rows; q, k and v are [B,L,H*d]."""

    rows: Tensor
    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class Part:
    """Some queries [L] of one row attend to other keys and values [1,N,...], in the call's form, than the rest."""

    row: int
    queries: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True)
class AttentionCall:
    """One attention of one model call. Its tensors are the network's own and must not be changed in place.

    q: [R,Q,H*d], or [R,H,Q,d] where the network divides heads itself. k, v: [R,K,H*d] or [R,h,K,d], see `heads`;
    positions are the last dimension but one of all three. mask: added to the scores (bool: True is kept), or None.
    scale: None for d^-1/2.
    inputs: what q and k were made from. attend: the user's attention backend: `attend(q, k, v,
    mask=None)` of any rows and values gives [R,Q,H*d], also after this attention, while the model call lasts; None
    where another node computes attention itself. edits, parts, computed, changes, added, mixtures: what was asked for.
    """

    site: Site
    q: Tensor
    k: Tensor
    v: Tensor
    mask: Tensor | None = None
    scale: float | None = None
    inputs: Inputs | None = None
    attend: Attend | None = None
    edits: Mapping[int, EditedRow] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    computed: tuple[tuple[slice, Attend], ...] = ()
    changes: tuple[Change, ...] = ()
    added: tuple[Added, ...] = ()
    mixtures: tuple[Mixture, ...] = ()

    def of_rows(self, rows: slice | Tensor | Sequence[int]) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """q, k, v and mask of these rows, as edited so far; edited rows must have equal shapes."""
        # which rows these are is asked of the device only where it matters
        if not self.edits or not self.edits.keys() & set(self._listed(rows)):
            return self.q[rows], self.k[rows], self.v[rows], mask_of_rows(self.mask, rows)
        each = [self._row(row) for row in self._listed(rows)]
        q, k, v = (torch.cat([row[i] for row in each]) for i in range(3))
        return q, k, v, None if each[0][3] is None else torch.cat([row[3] for row in each])

    @property
    def found(self) -> tuple[int, int, int]:
        """Numbers of rows, queries and keys; of rows -1 if queries and keys have different ones."""
        rows = len(self.q) if len(self.q) == len(self.k) else -1
        return rows, self.q.shape[-2], self.k.shape[-2]

    def unexpected(self, count: int) -> str:
        """What is wrong with its numbers of rows, queries and keys, with their cause; empty if nothing.

        count: of the network's rows.
        """
        rows, queries, keys = self.inputs.expected
        if self.found == (rows, queries, keys) and rows == count:
            return ""
        expected = f"{count, queries}" if queries == keys else f"{count, queries} and {count, keys}"
        return (
            f"{len(self.q), self.q.shape[-2]} rows and queries and {len(self.k), self.k.shape[-2]} rows and keys where "
            f"{expected} were expected, {self.inputs.cause}"
        )

    def of_picture(self, rows: slice | Tensor | Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """The picture's queries, all keys and the mask between them, of these rows, as edited so far."""
        q, k, _, mask = self.of_rows(rows)
        return q[..., self.site.queries, :], k, mask_of_queries(mask, self.site.queries)

    def within_picture(self, rows: slice | Tensor | Sequence[int]) -> tuple[Tensor, Tensor, Tensor | None]:
        """Queries and keys [B,N,H*d] of the picture alone and the mask between them, of these rows, as edited so far.

        Not for sites where the picture has no keys.
        """
        q, k, mask = self.of_picture(rows)
        k, heads = k[..., self.site.picture, :], self.site.heads
        return joined(q, heads), joined(k, heads), None if mask is None else mask[..., self.site.picture]

    def backend_of_joined(self) -> Attend:
        """`attend` of [R,L,H*d], whatever the call's form is. It keeps none of the call's tensors."""
        if self.q.ndim == 3:
            return self.attend
        attend, heads, size = self.attend, self.site.heads, width(self.q, self.site.heads)

        def of_joined(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
            return joined(attend(*(by_head(each, size) for each in (q, k, v)), mask), heads)

        return of_joined

    def probabilities(self, rows: slice | Tensor | Sequence[int], tokens: Tensor) -> Tensor:
        """P of `tokens` [N] in these rows, float32 [B,H,Q,N], over all keys."""
        q, k, _, mask = self.of_rows(rows)
        return token_probabilities(q, k, self.site.heads, tokens, mask=mask, scale=self.scale)

    def with_rows(
        self,
        rows: slice | Tensor | Sequence[int],
        *,
        q: Tensor | None = None,
        k: Tensor | None = None,
        v: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> AttentionCall:
        """The call with other queries, keys, values (in its form) or mask [len(rows),1 or H,Q,K] in these rows.

        Keys and values may be more or fewer than the call's own. All other rows keep their output bit for bit.
        """
        edits = dict(self.edits)
        for i, row in enumerate(self._listed(rows)):
            given = {name: each[i : i + 1] for name, each in zip("qkv", (q, k, v), strict=True) if each is not None}
            given |= {} if mask is None else {"mask": mask[i : i + 1]}
            edits[row] = replace(edits.get(row, EditedRow()), **given)
        return replace(self, edits=edits)

    def with_part(self, row: int, queries: Tensor, k: Tensor, v: Tensor) -> AttentionCall:
        """The call in which some queries [L] of a row, as edited, attend to k and v [1,N,...] alone, without a mask."""
        return replace(self, parts=(*self.parts, Part(row, queries, k, v)))

    def with_computed(self, rows: slice, attention: Attend) -> AttentionCall:
        """The call in which `attention(q, k, v, mask)` gives the output of these rows, as edited, not the backend."""
        return replace(self, computed=(*self.computed, (rows, attention)))

    def with_change(self, rows: slice | Tensor | Sequence[int], tokens: Tensor, amount: Tensor) -> AttentionCall:
        """The call with `amount` [B,H,Q,N] added to the probabilities of `tokens` [N] in these rows."""
        return replace(self, changes=(*self.changes, Change(self.numbers(rows), tokens, amount)))

    def with_added(self, rows: slice | Tensor | Sequence[int], q: Tensor, k: Tensor, v: Tensor) -> AttentionCall:
        """The call with the attention of q to k, with values v [len(rows),L,H*d], added to the output of these rows."""
        return replace(self, added=(*self.added, Added(self.numbers(rows), q, k, v)))

    def with_mixture(
        self, rows: slice | Tensor | Sequence[int], own: Tensor, others: Sequence[tuple[Tensor, Tensor, Tensor]]
    ) -> AttentionCall:
        """The call that mixes the output of these rows, after all other edits, see `Mixture`; q is the network's own.

        Of several mixtures of a row, a later one mixes what the earlier one gives.
        """
        mixture = Mixture(self.numbers(rows), self.q[rows], own, tuple(others))
        return replace(self, mixtures=(*self.mixtures, mixture))

    def numbers(self, rows: slice | Tensor | Sequence[int]) -> Tensor:
        """The numbers of the rows: int64 [B]."""
        every = torch.arange(len(self.q), device=self.q.device)
        return every[rows if isinstance(rows, (slice, Tensor)) else list(rows)]

    def _listed(self, rows: slice | Tensor | Sequence[int]) -> list[int]:
        """The numbers of the rows, without asking the device unless they are there."""
        if isinstance(rows, Tensor):
            return self.numbers(rows).tolist()
        every = range(len(self.q))
        return list(every[rows]) if isinstance(rows, slice) else list(rows)

    def _row(self, row: int) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        edit, at = self.edits.get(row, EditedRow()), slice(row, row + 1)
        q, k, v = (
            own[at] if new is None else new for own, new in ((self.q, edit.q), (self.k, edit.k), (self.v, edit.v))
        )
        mask = self.mask
        if mask is not None and mask.ndim < 4:
            mask = mask[None, None] if mask.ndim == 2 else mask.unsqueeze(1)
        return q, k, v, mask_of_rows(mask, at) if edit.mask is None else edit.mask


def mask_of_rows(mask: Tensor | None, rows: slice | Tensor | Sequence[int]) -> Tensor | None:
    """An attention mask [Q,K], [R or 1,Q,K] or [R or 1,1 or H,Q,K] of these rows."""
    return mask if mask is None or mask.ndim < 3 or mask.shape[0] == 1 else mask[rows]


class Processor:
    """Observes or edits attention at a network's sites during one model call. This base class does neither.

    kinds: the kinds of sites that it is asked about.
    """

    kinds: tuple[str, ...] = (CROSS,)

    def wants(self, site: Site) -> bool:
        """Whether `see` and `edit` are called for this site."""
        return True

    def edit(self, call: AttentionCall) -> AttentionCall:
        """Return the call as it shall be computed, see `AttentionCall.with_rows` and `with_change`."""
        return call

    def see(self, call: AttentionCall, out: Tensor) -> None:
        """Look at the call as the network made it, before any edit, and at its output after all edits.

        out: [R,Q,H*d], or [R,H,Q,d] where the network wants it so.
        """

    def mixed(self, name: str, out: Tensor, mixed: Tensor) -> None:
        """Look at `mixed`, which another node made of a cross-attention's output `out` and which has fewer rows."""

    def backend(self, attention: Callable) -> Callable:
        """Return what computes every attention of the network instead of the user's backend `attention`."""
        return attention

    def foreign(self, patch: Callable, compute: Callable[..., Tensor]) -> Callable[..., Tensor]:
        """Return what runs instead of `compute(q, k, v)`, with which another node's `patch` computes attention."""
        return compute
