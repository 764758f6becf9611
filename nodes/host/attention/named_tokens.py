"""The tokens of a prompt whose attention is read: those of its subjects, and its words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.attention.probabilities import token_columns


@dataclass(frozen=True)
class NamedTokens:
    """The tokens of a prompt whose attention is read.

    tokens: per subject, its positions in the prompt's context. words: positions of all the prompt's own tokens, if
    probabilities are renormalised over these alone, else None.
    """

    tokens: tuple[tuple[int, ...], ...]
    words: tuple[int, ...] | None = None

    def columns(self, own: int, length: int, device: torch.device) -> tuple[Tensor, Tensor | None]:
        """Membership of a prompt's `own` tokens: [T,S] of the subjects, [T] of the words.

        length: of the context where the prompt stands, repeated where that is longer. Raises ValueError as
        `token_columns` does.
        """
        columns = token_columns(self.tokens, length, own)[:own].to(device)
        words = None if self.words is None else token_columns([self.words], own, own)[:, 0].to(device)
        return columns, words
