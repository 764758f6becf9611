"""Where the prompt's rows and keys are after other nodes rearranged a cross-attention.

Regional prompting repeats a conditioning's rows once per region and gives each its own text (Attention Couple); NegPip
makes keys of every other token. Rows are found by their queries, the text by the context that the keys are
made from, both by comparing the output of the other nodes' patches with their input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.attention.rearranged import is_alike, key_positions
from ..families.sites import Inputs
from .named_tokens import NamedTokens
from .positives import PromptRows


class UnreadableError(ValueError):
    """Another node rearranged a cross-attention so that the prompt is not found in it; the message names the node."""


@dataclass(frozen=True)
class Place:
    """Rows of a cross-attention whose keys hold the prompt.

    rows: one per latent. columns: [T',S], 1 where a key belongs to a subject. words: [T'], the prompt's own tokens, or
    None. carrier: the index of these rows in `Arrangement.carriers`.
    """

    rows: slice | Tensor
    columns: Tensor
    words: Tensor | None
    carrier: int = 0


@dataclass(frozen=True)
class Arrangement:
    """One cross-attention, as other nodes' patches left it.

    shape: numbers of rows and keys. places: for each conditioning. carriers: for each conditioning [K,B], all rows that
    hold the queries of its B latents and are mixed after the attention; None if the rows were left as they were.
    """

    shape: tuple[int, int]
    places: list[list[Place]]
    carriers: list[Tensor] | None


@dataclass(frozen=True)
class _Text:
    """A prompt. context: [B or 1,T,d]. columns: [T,S], 1 where a token belongs to a subject. words: [T] or None."""

    context: Tensor
    columns: Tensor
    words: Tensor | None


class Arranger:
    """Finds conditionings in a model call's cross-attentions, wherever other nodes put their rows and keys.

    rows: the conditionings. named: the tokens of their prompt that count. Raises ValueError as `NamedTokens.columns`.
    """

    def __init__(self, rows: Sequence[PromptRows], named: NamedTokens) -> None:
        self._rows = rows
        self._texts = [
            [
                _Text(each, *named.columns(each.shape[1], length or each.shape[1], each.device, row.padding))
                for each in row.contexts
            ]
            for row, length in ((row, row.length if row.own else 0) for row in rows)
        ]
        self._plain: Arrangement | None = None

    def arrangement(self, inputs: Inputs) -> Arrangement:
        """Find the prompt in a cross-attention made from `inputs`. Raises UnreadableError if it is not there."""
        row, (count, *grid) = self._rows[0], inputs.latent
        if (count, *grid) != (row.count, *row.size):
            raise UnreadableError(
                f"the network was called with {count} rows of {tuple(grid)} instead of {row.count} of {row.size}: "
                f"{inputs.called_by} splits the batch or cuts the latent into tiles"
            )
        if inputs.before is None:
            if not row.own:
                raise _not_there(inputs.changed_by)
            return self._untouched((inputs.expected[0], inputs.expected[2] if inputs.after else row.length))
        n, context = inputs.after
        before_n, before_context = inputs.before
        if context.shape[0] != n.shape[0]:
            raise UnreadableError(
                f"there are {n.shape[0]} rows of queries and {context.shape[0]} of keys, changed by {inputs.changed_by}"
            )
        kept = n.shape[0] == before_n.shape[0]
        carriers = [_carriers(row, n, None if kept else before_n[row.rows]) for row in self._rows]
        if any(rows is None for rows in carriers):
            raise UnreadableError(f"its rows and queries are no longer the picture's, changed by {inputs.changed_by}")
        changed = not kept or context is not before_context
        places = [self._places(i, rows, context, changed, inputs.changed_by) for i, rows in enumerate(carriers)]
        return Arrangement((n.shape[0], context.shape[1]), places, None if kept else carriers)

    def _untouched(self, shape: tuple[int, int]) -> Arrangement:
        """The arrangement where no other node has a patch, the same in every layer."""
        if self._plain is None:
            self._plain = Arrangement(shape, [[self._in_place(i, shape[1])] for i in range(len(self._rows))], None)
        return self._plain

    def _places(self, i: int, carriers: Tensor, context: Tensor, changed: bool, by: str) -> list[Place]:
        """Where the keys hold one of the i-th conditioning's texts."""
        row, texts = self._rows[i], self._texts[i]
        if row.own and not changed:
            return [self._in_place(i, context.shape[1])]
        places: dict[int, Place] = {}
        for text in texts:
            expected = text.context.expand(carriers.shape[1], -1, -1).repeat(len(carriers), 1, 1)
            found = key_positions(context[carriers.flatten()], expected).unflatten(0, carriers.shape)
            held = (found >= 0).any(-1).all(-1) & (found == found[:, :1]).flatten(1).all(-1)
            for k in held.nonzero()[:, 0].tolist():
                places.setdefault(k, Place(carriers[k], *_of_keys(text, found[k, 0]), carrier=k))
        if places:
            return list(places.values())
        whole = row.own and len(carriers) == 1 and context.shape[1] >= row.length
        if whole and is_alike(context[row.rows], texts[0].context, texts[0].columns):
            return [self._in_place(i, context.shape[1])]
        if row.own:
            raise UnreadableError(f"its keys are no longer the prompt's, changed by {by}")
        raise _not_there(by)

    def _in_place(self, i: int, length: int) -> Place:
        """The conditioning's rows as they were; keys that another node added after the text belong to nothing."""
        row, text = self._rows[i], self._texts[i][0]
        positions = torch.arange(length, device=text.columns.device)
        positions = torch.where(positions < row.length, positions % text.columns.shape[0], -1)
        return Place(row.rows, *_of_keys(text, positions))


def _not_there(by: str) -> UnreadableError:
    return UnreadableError(f"none of its rows has the text of the chosen prompt, put there by {by}")


def _carriers(row: PromptRows, n: Tensor, before: Tensor | None) -> Tensor | None:
    """The rows of n that hold the queries of each latent of a conditioning: [K,B], None if they are not found.

    before: those queries; None if the rows are as they were.
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


def _of_keys(text: _Text, positions: Tensor) -> tuple[Tensor, Tensor | None]:
    """Which keys, made from the tokens at `positions` [T'], belong to the subjects and to the prompt."""
    inside = (positions >= 0).to(text.columns)
    at = positions.clamp_min(0)
    columns = text.columns[at] * inside.unsqueeze(-1)
    return columns, None if text.words is None else text.words[at] * inside
