"""The tokens of a prompt whose attention is read: those of its subjects, and its words."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.attention.probabilities import token_columns


@dataclass(frozen=True)
class NamedTokens:
    """The tokens of a prompt whose attention is read.

    tokens: per subject, its positions in the prompt's context. words: positions of all the prompt's own tokens, if
    probabilities are renormalised over these alone, else None. all_text: whether they are renormalised over all tokens
    of the context instead, those of a template and padding as well.
    """

    tokens: tuple[tuple[int, ...], ...]
    words: tuple[int, ...] | None = None
    all_text: bool = False

    def columns(self, own: int, length: int, device: torch.device, padding: int = 0) -> tuple[Tensor, Tensor | None]:
        """Membership of a prompt's `own` tokens: [T,S] of the subjects, [T] of the words.

        length: of the context where the prompt stands, repeated where that is longer. padding: how many of its own
        tokens the host put in front of the text. Raises ValueError as `token_columns` does.
        """
        columns, words = token_columns(self.tokens, length - padding, own - padding)[: own - padding], None
        if self.words is not None or self.all_text:
            counted = range(own - padding) if self.all_text else self.words
            words = F.pad(token_columns([counted], own - padding, own - padding)[:, 0], (padding, 0)).to(device)
        return F.pad(columns, (0, 0, padding, 0)).to(device), words
