"""From characters of a prompt to positions of a text encoder's tokens.

The host cuts a prompt at weights and embeddings and gives each piece of text to the encoder's tokenizer. Given those
pieces in order, the characters each token was made of follow without guessing: every visible character of the prompt
must turn up in exactly one piece, in the same order. Anything else is an error.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from .prompt_text import PlainText


@dataclass(frozen=True)
class Piece:
    """What the host tokenized in one go.

    text: the characters it covers. offsets[k]: [start, end) in text of its k-th token. positions[k]: where that token
    stands in the sequence the encoder emits, None when it is not emitted.
    """

    text: str
    offsets: tuple[tuple[int, int], ...]
    positions: tuple[int | None, ...]


@dataclass(frozen=True)
class TokenSpan:
    """One emitted token: its position and the characters [start, end) of the prompt as typed it was made of."""

    position: int
    start: int
    end: int


def token_spans(plain: PlainText, pieces: Sequence[Piece]) -> tuple[TokenSpan, ...]:
    """Return the tokens of all pieces with the characters of the prompt they came from, in order of the prompt.

    Tokens made of white space only are left out. Raises ValueError when the visible characters of the pieces are not
    those of the prompt, one by one.
    """
    visible = [i for i, character in enumerate(plain.text) if not character.isspace()]
    spans: list[TokenSpan] = []
    taken = 0
    for piece in pieces:
        inside = [j for j, character in enumerate(piece.text) if not character.isspace()]
        source = visible[taken : taken + len(inside)]
        taken += len(inside)
        if [plain.text[i] for i in source] != [piece.text[j] for j in inside]:
            raise _mismatch(plain, piece.text)
        for (start, end), position in zip(piece.offsets, piece.positions, strict=True):
            first, last = bisect_left(inside, start), bisect_left(inside, end)
            if position is not None and first < last:
                spans.append(TokenSpan(position, *plain.span(source[first], source[last - 1] + 1)))
    if taken != len(visible):
        raise _mismatch(plain, "nothing more")
    return tuple(spans)


def positions_of(span: tuple[int, int], tokens: Sequence[TokenSpan]) -> tuple[int, ...]:
    """Return the ascending positions of the tokens that share a character with span, [start, end) of the prompt.

    tokens: in order of the prompt, as `token_spans` returns them. A token that covers more than the word (a comma
    merged with it, an emoji sequence) counts for it.
    """
    start, end = span
    first = bisect_right(tokens, start, key=lambda token: token.end)
    last = bisect_left(tokens, end, key=lambda token: token.start)
    return tuple(sorted({token.position for token in tokens[first:last]}))


def token_list(prompt: str, tokens: Sequence[TokenSpan], limit: int = 40) -> str:
    """Return the tokens of a prompt as "1:a 2:gir 3:affe …" for error messages."""
    shown = " ".join(f"{token.position}:{prompt[token.start : token.end]}" for token in tokens[:limit])
    return f"{shown} … ({len(tokens)} tokens)" if len(tokens) > limit else shown or "(no tokens)"


def _mismatch(plain: PlainText, piece: str) -> ValueError:
    return ValueError(
        f"This text encoder's tokenizer changes the prompt in a way that is not understood: given '{piece[:80]}' "
        f"out of '{plain.text[:80]}', so token positions would be a guess. Supported: SD 1.x, SD 2.x, SDXL, SD 3, Flux."
    )
