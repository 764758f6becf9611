"""From characters of a prompt to positions of a text encoder's tokens.

The host cuts a prompt at weights and embeddings and gives each text between to the encoder's tokenizer. From those
texts, in order, the characters of each token follow without guessing: every visible character of the prompt must
occur in exactly one of the texts, in the same order. Anything else is an error.

Which characters of its text each token was made of, `token_offsets` finds out.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from .context_rows import ContextRows
from .prompt_text import PlainText
from .token_offsets import Offsets


@dataclass(frozen=True)
class TokenizedText:
    """A text of the prompt that the host gave to the tokenizer in one call, with its tokens.

    offsets[k]: [start, end) in `text` of the characters of token k. positions[k]: where token k stands in the sequence
    that the encoder emits, None when it is not emitted.
    """

    text: str
    offsets: Offsets
    positions: tuple[int | None, ...]


@dataclass(frozen=True)
class TokenSpan:
    """An emitted token: its position, and the characters [start, end) of the prompt as typed that it was made of."""

    position: int
    start: int
    end: int


@dataclass(frozen=True)
class PromptTokens(Mapping[str, tuple[TokenSpan, ...]]):
    """The tokens of a prompt in every text encoder of a CLIP: encoder key -> its tokens in order of the prompt.

    context: where the encoded prompt holds them, None if there is no encoder to ask. notes: what is wrong with the
    tokens although they are what the encoder gets.
    """

    spans: Mapping[str, tuple[TokenSpan, ...]]
    context: ContextRows | None = None
    notes: tuple[str, ...] = field(default=())

    def __getitem__(self, key: str) -> tuple[TokenSpan, ...]:
        return self.spans[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.spans)

    def __len__(self) -> int:
        return len(self.spans)


def token_spans(plain: PlainText, texts: Sequence[TokenizedText]) -> tuple[TokenSpan, ...]:
    """Return the tokens of all texts with the characters of the prompt that they came from, in order of the prompt.

    Tokens made of white space only are left out. Raises ValueError when the visible characters of the texts are not
    those of the prompt, one by one.
    """
    visible = [i for i, character in enumerate(plain.text) if not character.isspace()]
    spans: list[TokenSpan] = []
    taken = 0
    for tokenized in texts:
        inside = [j for j, character in enumerate(tokenized.text) if not character.isspace()]
        source = visible[taken : taken + len(inside)]
        taken += len(inside)
        if [plain.text[i] for i in source] != [tokenized.text[j] for j in inside]:
            raise _mismatch(plain, tokenized.text)
        for (start, end), position in zip(tokenized.offsets, tokenized.positions, strict=True):
            first, last = bisect_left(inside, start), bisect_left(inside, end)
            if position is not None and first < last:
                spans.append(TokenSpan(position, *plain.span(source[first], source[last - 1] + 1)))
    if taken != len(visible):
        raise _mismatch(plain, "nothing more")
    return tuple(spans)


def spans_within(tokens: Sequence[TokenSpan], start: int, end: int) -> tuple[TokenSpan, ...]:
    """Return the tokens that have characters of text[start:end], their characters counted from `start`."""
    return tuple(
        TokenSpan(token.position, max(token.start, start) - start, min(token.end, end) - start)
        for token in tokens
        if token.start < end and token.end > start
    )


def positions_of(span: tuple[int, int], tokens: Sequence[TokenSpan]) -> tuple[int, ...]:
    """Return the ascending positions of the tokens that share a character with `span`, [start, end) of the prompt.

    tokens: in order of the prompt, as `token_spans` returns them. A token that covers more than the word (with a comma,
    or several emoji) counts, too.
    """
    start, end = span
    first = bisect_right(tokens, start, key=lambda token: token.end)
    last = bisect_left(tokens, end, key=lambda token: token.start)
    return tuple(sorted({token.position for token in tokens[first:last]}))


def positions_in(span: tuple[int, int], tokens: Mapping[str, Sequence[TokenSpan]]) -> dict[str, tuple[int, ...]]:
    """Return `positions_of` the span in every encoder."""
    return {key: positions_of(span, spans) for key, spans in tokens.items()}


def context_of(tokens: Mapping[str, Sequence[TokenSpan]]) -> ContextRows | None:
    """Return where the encoded prompt holds these tokens; None if no encoder was asked."""
    return tokens.context if isinstance(tokens, PromptTokens) else None


def token_list(prompt: str, tokens: Sequence[TokenSpan], limit: int = 40) -> str:
    """Return the tokens of a prompt as "1:a 2:gir 3:affe …" for error messages."""
    shown = " ".join(f"{token.position}:{prompt[token.start : token.end]}" for token in tokens[:limit])
    return f"{shown} … ({len(tokens)} tokens)" if len(tokens) > limit else shown or "(no tokens)"


def _mismatch(plain: PlainText, text: str) -> ValueError:
    return ValueError(
        f"This text encoder's tokenizer changes the prompt in a way that is not understood: given '{text[:80]}' "
        f"out of '{plain.text[:80]}', so token positions would be a guess. Connect a CLIP that ComfyUI's own nodes "
        "load."
    )
