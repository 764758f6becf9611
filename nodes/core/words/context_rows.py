"""Which row of what the network reads as text holds which token of a prompt.

A text encoder's conditioning is seldom its tokens one by one: a template is cut off, the rows of two encoders stand one
after the other or share rows. `ContextRows` says what stands where; the host's `context_rows` finds it out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ContextRows:
    """What the rows of an encoded prompt hold.

    length: number of rows of the conditioning's text. held: encoder key -> position of a token in what that encoder
    emits -> ascending rows that hold it. They are rows of the conditioning's text; only where the encoder hands the
    tokens of a second tokenizer to the network beside it (Anima), they are the rows that the network makes of those.
    """

    length: int
    held: Mapping[str, Mapping[int, tuple[int, ...]]]

    def of(self, positions: Mapping[str, Sequence[int]]) -> tuple[int, ...]:
        """Return the ascending rows that hold any of the tokens. positions: encoder key -> positions."""
        there = {key: held for key, held in self.held.items() if key in positions}
        return tuple(
            sorted({row for key, held in there.items() for each in positions[key] for row in held.get(each, ())})
        )
