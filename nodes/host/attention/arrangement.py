"""Where the prompt's rows and keys are after other nodes rearranged a cross-attention.

Regional prompting repeats a conditioning's rows once per region and gives each its own text (Attention Couple); NegPip
makes keys of every other token. The rows are found by the queries they carry, the text by the context their keys are
made from, both by comparing what comes out of the other nodes' patches with what went in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.attention.rearranged import is_alike, key_positions
from .patch_names import of_other_nodes, patch_names
from .rows import Rows, Text


class UnreadableError(ValueError):
    """Another node rearranged a cross-attention so that the prompt is not found in it; the text names the node."""


@dataclass(frozen=True)
class Place:
    """Rows of a cross-attention whose keys hold the prompt.

    rows: one per latent. columns: [T',S], 1 where a key belongs to a subject. words: [T'], the prompt's own tokens, or
    None. carrier: which of the conditioning's carriers these rows are.
    """

    rows: slice | Tensor
    columns: Tensor
    words: Tensor | None
    carrier: int = 0


@dataclass(frozen=True)
class Arrangement:
    """One cross-attention, as other nodes' patches left it.

    shape: its rows and its keys. places: of each conditioning. carriers: [K,B] of each conditioning, the rows that
    carry its B latents' queries, which are mixed behind the attention; None where the rows were left as they were.
    """

    shape: tuple[int, int]
    places: list[list[Place]]
    carriers: list[Tensor] | None


class Arranger:
    """Compares what goes into the other nodes' attn2 patches with what comes out of them.

    rows: the conditionings that are looked for. patches: the other nodes' functions. names: what to call these.
    """

    def __init__(self, rows: list[Rows], patches: Iterable[Callable]) -> None:
        self._rows = rows
        self.names = patch_names(of_other_nodes(patches)) or "another node"
        self._before: tuple[Tensor, Tensor] | None = None
        self._behind: tuple[Tensor, Tensor] | None = None
        self._plain: Arrangement | None = None

    def enter(self, n: Tensor, context: Tensor) -> None:
        """Before the other nodes' patches: queries are made from n [R,Q,d], keys from the context [R,T,d]."""
        self._before = n, context

    def leave(self, n: Tensor, context: Tensor) -> None:
        """Behind the other nodes' patches, whose n and context may have other shapes."""
        self._behind = n, context

    def arrangement(self) -> Arrangement:
        """How the cross-attention was left that comes next. Raises UnreadableError when the prompt is not found."""
        n, context = self._behind
        if self._before is None:
            return self._untouched((n.shape[0], context.shape[1]))
        before_n, before_context = self._before
        if context.shape[0] != n.shape[0]:
            raise UnreadableError(
                f"there are {n.shape[0]} rows of queries and {context.shape[0]} of keys, changed by {self.names}"
            )
        kept = n.shape[0] == before_n.shape[0]
        carriers = [_carriers(row, n, None if kept else before_n[row.rows]) for row in self._rows]
        if any(rows is None for rows in carriers):
            raise UnreadableError(f"its rows and queries are no longer the picture's, changed by {self.names}")
        changed = not kept or context is not before_context
        places = [self._places(row, rows, context, changed) for row, rows in zip(self._rows, carriers, strict=True)]
        return Arrangement((n.shape[0], context.shape[1]), places, None if kept else carriers)

    def _untouched(self, shape: tuple[int, int]) -> Arrangement:
        """Where no other node has a patch: in every layer the same."""
        if self._plain is None:
            self._plain = Arrangement(shape, [[_in_place(row, shape[1])] for row in self._rows], None)
        return self._plain

    def _places(self, row: Rows, carriers: Tensor, context: Tensor, changed: bool) -> list[Place]:
        """Where the keys hold one of the conditioning's texts."""
        if row.own and not changed:
            return [_in_place(row, context.shape[1])]
        places: dict[int, Place] = {}
        for text in row.texts:
            expected = text.context.expand(carriers.shape[1], -1, -1).repeat(len(carriers), 1, 1)
            found = key_positions(context[carriers.flatten()], expected).unflatten(0, carriers.shape)
            held = (found >= 0).any(-1).all(-1) & (found == found[:, :1]).flatten(1).all(-1)
            for k in held.nonzero()[:, 0].tolist():
                places.setdefault(k, Place(carriers[k], *_of_keys(text, found[k, 0]), carrier=k))
        if places:
            return list(places.values())
        if row.own and len(carriers) == 1 and context.shape[1] >= row.length:
            text = row.texts[0]
            if is_alike(context[row.rows], text.context, text.columns):
                return [_in_place(row, context.shape[1])]
        if row.own:
            raise UnreadableError(f"its keys are no longer the prompt's, changed by {self.names}")
        raise UnreadableError(f"none of its rows has the text of the chosen prompt, put there by {self.names}")


def _carriers(row: Rows, n: Tensor, before: Tensor | None) -> Tensor | None:
    """The rows of n that carry the queries of each latent of a conditioning: [K,B], None where they are not found.

    before: those queries, None where the rows are as they were.
    """
    if before is None:
        return torch.arange(row.rows.start, row.rows.stop, device=n.device).unsqueeze(0)
    if before.shape[1:] != n.shape[1:]:
        return None
    found = [(n == query).flatten(1).all(1).nonzero()[:, 0] for query in before]
    count = len(found[0])
    if count == 0 or any(len(rows) != count for rows in found):
        return None
    return torch.stack(found, dim=1)


def _in_place(row: Rows, length: int) -> Place:
    """The conditioning's rows as they were; keys that another node put behind the text belong to nothing."""
    tokens = row.texts[0].columns.shape[0]
    positions = torch.arange(length, device=row.texts[0].columns.device)
    positions = torch.where(positions < row.length, positions % tokens, -1)
    return Place(row.rows, *_of_keys(row.texts[0], positions))


def _of_keys(text: Text, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which keys, made from the tokens at `positions` [T'], belong to the subjects and to the prompt."""
    inside = (positions >= 0).to(text.columns)
    at = positions.clamp_min(0)
    columns = text.columns[at] * inside.unsqueeze(-1)
    return columns, None if text.words is None else text.words[at] * inside
