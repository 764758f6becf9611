"""Structured Diffusion Guidance (Feng et al., ICLR 2023): a phrase says what it means alone, where it stands.

A text encoder lets every word know those before it, so that in "a red car and a white sheep" the sheep knows of red.
Where c is the encoded prompt, c^1 … c^m are copies in which the rows of one phrase are those of that phrase encoded
alone, and K and V make keys and values, every cross-attention layer gives

    O = mean over c' in {c, c^1 … c^m} of A(q, K(c), V(c')) = A(q, K(c), V(mean of the c'))

since V is linear: where the picture looks stays, what it is told changes. The authors count the whole sentence as a
phrase; that is c. Their code also writes phrases into the keys, which their paper does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PhraseAlone:
    """A phrase of a prompt.

    rows: those of its tokens in the encoded prompt. alone: the same tokens [n,d], encoded without the rest.
    """

    words: str
    rows: tuple[int, ...]
    alone: Tensor


def told_context(context: Tensor, phrases: Sequence[PhraseAlone], strength: float = 1.0) -> Tensor:
    """What values are made of in place of `context` [B,T,d], in its type: the mean of it and of its copies.

    phrases: they may overlap, each has a copy of its own. strength: 1 is the paper's; 0 the context itself, in between
    a part of the way.
    """
    told, share = context.float(), strength / (1 + len(phrases))
    told = told.clone()
    for phrase in phrases:
        rows = list(phrase.rows)
        own = context[:, rows].float()
        told[:, rows] += share * (phrase.alone.to(own) - own)
    return told.to(context)


def exchanged(context: Tensor, phrases: Sequence[PhraseAlone]) -> Tensor:
    """The context [B,T,d] with each phrase's rows exchanged for those of the phrase encoded alone."""
    told = context.clone()
    for phrase in phrases:
        told[:, list(phrase.rows)] = phrase.alone.to(context)
    return told
