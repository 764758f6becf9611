"""Characters of a text that each of its tokens was made of, for Hugging Face tokenizers.

Fast tokenizers report them. The slow CLIP tokenizer of transformers 4 does not: its tokens are byte strings of the
normalised text, so they are laid over the text normalised piece by piece.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from typing import Any

Offsets = tuple[tuple[int, int], ...]

# The slow tokenizer's merge loop is quadratic in a run without spaces: 500 emoji take it about a second.
MAX_SLOW_RUN = 500

_WORD_START = "▁"


def token_offsets(tokenizer: Any, text: str, tokens: Sequence[int]) -> Offsets:
    """Return [start, end) in text for each of `tokens`, the ids the host got for it without begin and end tokens.

    A token that only marks the start of a word (T5) covers nothing. Raises ValueError when the tokenizer itself answers
    with other ids, or cannot be traced back to characters.
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
    pieces = [bytes(tokenizer.byte_decoder[c] for c in name.removesuffix("</w>")) for name in names]
    return byte_offsets(text, pieces, _slow_normaliser(tokenizer))


def check_slow(tokenizer: Any, text: str) -> None:
    """Raise ValueError for a text that a slow tokenizer would take minutes for."""
    if hasattr(tokenizer, "byte_decoder") and any(len(run) > MAX_SLOW_RUN for run in text.split()):
        raise ValueError(
            f"The prompt has more than {MAX_SLOW_RUN} characters without a space, which the tokenizer of this "
            "transformers version takes minutes for. Add spaces, or update transformers to version 5."
        )


def byte_offsets(text: str, pieces: Sequence[bytes], normalise: Callable[[str], str]) -> Offsets:
    """Return [start, end) in text for each piece of the UTF-8 bytes of the normalised text without its white space.

    normalise: what the tokenizer does to a text before it cuts it. It is applied to each character with its combining
    marks; a word in which that gives other bytes than normalising it whole counts as one character. Raises ValueError
    when the pieces are not the normalised text.
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
    if b"".join(pieces) != bytes(expected):
        raise _untraceable(text)
    offsets, taken = [], 0
    for piece in pieces:
        covered = owners[taken : taken + len(piece)] or [(0, 0)]
        offsets.append((covered[0][0], covered[-1][1]))
        taken += len(piece)
    return tuple(offsets)


def _clusters(word: str, shift: int) -> list[tuple[int, int]]:
    starts = [i for i, character in enumerate(word) if i == 0 or not unicodedata.combining(character)]
    return [(a + shift, b + shift) for a, b in zip(starts, [*starts[1:], len(word)], strict=True)]


def _visible_bytes(text: str) -> bytes:
    return "".join(text.split()).encode()


def _slow_normaliser(tokenizer: Any) -> Callable[[str], str]:
    """Return what the slow CLIP tokenizer does before it cuts: ftfy and lower case, or its own basic cleaning."""
    if getattr(tokenizer, "fix_text", None) is not None:
        return lambda text: tokenizer.fix_text(text).lower()
    return lambda text: " ".join(tokenizer.nlp.tokenize(text))


def _untraceable(text: str) -> ValueError:
    return ValueError(
        f"The tokens of '{text[:80]}' cannot be traced back to its characters in this text encoder's tokenizer, so "
        "token positions would be a guess. Supported: SD 1.x, SD 2.x, SDXL, SD 3, Flux."
    )
