"""From characters of a prompt to positions of a text encoder's tokens.

The host cuts a prompt at weights and embeddings and gives each text between to the encoder's tokenizer. From those
texts, in order, the characters of each token follow without guessing: every visible character of the prompt must
occur in exactly one of the texts, in the same order. Anything else is an error.

Fast Hugging Face tokenizers report which characters of its text each token was made of (`token_offsets`). The slow CLIP
tokenizer of transformers 4 does not: its tokens are byte strings of the normalised text, so they are matched with the
text, normalised character by character.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from .prompt_text import PlainText

Offsets = tuple[tuple[int, int], ...]  # [start, end) of each token's characters

# The slow tokenizer's merge loop is quadratic in a run without spaces: 500 emoji take it about a second.
MAX_SLOW_RUN = 500

# The token by which T5 marks the start of a word.
_WORD_START = "▁"

_NO_GUESS = "so token positions would be a guess. Supported: SD 1.x, SD 2.x, SDXL, SD 3, Flux."


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


def positions_of(span: tuple[int, int], tokens: Sequence[TokenSpan]) -> tuple[int, ...]:
    """Return the ascending positions of the tokens that share a character with `span`, [start, end) of the prompt.

    tokens: in order of the prompt, as `token_spans` returns them. A token that covers more than the word (with a comma,
    or several emoji) counts, too.
    """
    start, end = span
    first = bisect_right(tokens, start, key=lambda token: token.end)
    last = bisect_left(tokens, end, key=lambda token: token.start)
    return tuple(sorted({token.position for token in tokens[first:last]}))


def token_list(prompt: str, tokens: Sequence[TokenSpan], limit: int = 40) -> str:
    """Return the tokens of a prompt as "1:a 2:gir 3:affe …" for error messages."""
    shown = " ".join(f"{token.position}:{prompt[token.start : token.end]}" for token in tokens[:limit])
    return f"{shown} … ({len(tokens)} tokens)" if len(tokens) > limit else shown or "(no tokens)"


def token_offsets(tokenizer: Any, text: str, tokens: Sequence[int]) -> Offsets:
    """Return [start, end) in `text` for each of `tokens`, the ids that the host got for it, without begin and end.

    tokenizer: a Hugging Face tokenizer. A token that only marks the start of a word (T5) covers nothing. Raises
    ValueError when the tokenizer itself gives other ids, or its tokens cannot be traced back to characters.
    """
    if getattr(tokenizer, "is_fast", False):
        encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
        kept = [k for k, special in enumerate(encoding["special_tokens_mask"]) if not special]
        if [encoding["input_ids"][k] for k in kept] != list(tokens):
            raise _untraceable(text)
        names = tokenizer.convert_ids_to_tokens(list(tokens))
        offsets = [encoding["offset_mapping"][k] for k in kept]
        return tuple((0, 0) if name == _WORD_START else tuple(pair) for name, pair in zip(names, offsets, strict=True))
    if not hasattr(tokenizer, "byte_decoder"):
        raise _untraceable(text)
    names = tokenizer.convert_ids_to_tokens(list(tokens))
    encoded = [bytes(tokenizer.byte_decoder[c] for c in name.removesuffix("</w>")) for name in names]
    return byte_offsets(text, encoded, _slow_normaliser(tokenizer))


def check_slow(tokenizer: Any, text: str) -> None:
    """Raise ValueError for a text that a slow tokenizer would take minutes for."""
    if hasattr(tokenizer, "byte_decoder") and any(len(run) > MAX_SLOW_RUN for run in text.split()):
        raise ValueError(
            f"The prompt has more than {MAX_SLOW_RUN} characters without a space, which the tokenizer of this "
            "transformers version takes minutes for. Add spaces, or update transformers to version 5."
        )


def byte_offsets(text: str, tokens: Sequence[bytes], normalise: Callable[[str], str]) -> Offsets:
    """Return [start, end) in `text` for each token, given as UTF-8 bytes of the normalised text without white space.

    normalise: what the tokenizer does to a text before it cuts it. It is applied to each character with its combining
    marks; a word in which that gives other bytes than normalising it whole counts as one character. Raises ValueError
    when the tokens together are not the normalised text.
    """
    owners: list[tuple[int, int]] = []
    expected = bytearray()
    for word in re.finditer(r"\S+", text):
        clusters = list(_clusters(word[0], word.start()))
        parts = [_visible_bytes(normalise(text[start:end])) for start, end in clusters]
        whole = _visible_bytes(normalise(word[0]))
        if b"".join(parts) != whole:
            clusters, parts = [word.span()], [whole]
        for cluster, part in zip(clusters, parts, strict=True):
            owners += [cluster] * len(part)
            expected += part
    if b"".join(tokens) != bytes(expected):
        raise _untraceable(text)
    offsets, taken = [], 0
    for token in tokens:
        covered = owners[taken : taken + len(token)] or [(0, 0)]
        offsets.append((covered[0][0], covered[-1][1]))
        taken += len(token)
    return tuple(offsets)


def _clusters(word: str, shift: int) -> list[tuple[int, int]]:
    """Return [start, end) of every character of a word with its combining marks; the word starts at `shift`."""
    starts = [i for i, character in enumerate(word) if i == 0 or not unicodedata.combining(character)]
    return [(a + shift, b + shift) for a, b in zip(starts, [*starts[1:], len(word)], strict=True)]


def _visible_bytes(text: str) -> bytes:
    return "".join(text.split()).encode()


def _slow_normaliser(tokenizer: Any) -> Callable[[str], str]:
    """Return how the slow CLIP tokenizer normalises a text: ftfy and lower case, or its own basic cleaning."""
    if getattr(tokenizer, "fix_text", None) is not None:
        return lambda text: tokenizer.fix_text(text).lower()
    return lambda text: " ".join(tokenizer.nlp.tokenize(text))


def _mismatch(plain: PlainText, text: str) -> ValueError:
    return ValueError(
        f"This text encoder's tokenizer changes the prompt in a way that is not understood: given '{text[:80]}' "
        f"out of '{plain.text[:80]}', {_NO_GUESS}"
    )


def _untraceable(text: str) -> ValueError:
    return ValueError(
        f"The tokens of '{text[:80]}' cannot be traced back to its characters in this text encoder's tokenizer, "
        f"{_NO_GUESS}"
    )
