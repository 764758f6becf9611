"""Which characters of a text each token was made of, for every kind of tokenizer that the host's encoders have.

Fast Hugging Face tokenizers report it. The slow ones of transformers 4 do not: the tokens of CLIP and Qwen are byte
strings of the normalised text, so they are matched with the text, normalised character by character; those of BERT are
pieces of its words. SentencePiece reports where each character of its normalised text came from. Nothing is guessed:
tokens that are not the text, byte by byte or piece by piece, are an error.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

Offsets = tuple[tuple[int, int], ...]  # [start, end) of each token's characters

# The slow tokenizer's merge loop is quadratic in a run without spaces: 500 emoji take it about a second.
MAX_SLOW_RUN = 500

# The token by which T5 marks the start of a word.
_WORD_START = "▁"


def token_offsets(tokenizer: Any, text: str, tokens: Sequence[int], kept: slice) -> Offsets:
    """Return [start, end) in `text` for each of `tokens`, the ids that the host got for it, without begin and end.

    tokenizer: of Hugging Face, or the host's around SentencePiece. kept: which of the tokenizer's ids the host keeps
    (not its begin and end). The host may have cut the last tokens off. A token that only marks the start of a word (T5)
    covers nothing. Raises ValueError when the tokenizer itself gives other ids, or its tokens cannot be traced back to
    characters.
    """
    if getattr(tokenizer, "is_fast", False):
        ids, offsets = _fast(tokenizer, text, kept)
    elif hasattr(getattr(tokenizer, "tokenizer", None), "id_to_piece"):
        ids, offsets = _sentencepiece(tokenizer, text, kept)
    elif not hasattr(tokenizer, "byte_decoder") and not hasattr(tokenizer, "basic_tokenizer"):
        raise untraceable(text)
    else:
        ids = list(tokenizer(text)["input_ids"][kept])
        offsets = _slow(tokenizer, text, ids)
    if ids[: len(tokens)] != list(tokens):
        raise untraceable(text)
    return tuple(offsets[: len(tokens)])


def check_slow(tokenizer: Any, text: str) -> None:
    """Raise ValueError for a text that a slow tokenizer would take minutes for."""
    if hasattr(tokenizer, "byte_decoder") and any(len(run) > MAX_SLOW_RUN for run in text.split()):
        raise ValueError(
            f"The prompt has more than {MAX_SLOW_RUN} characters without a space, which the tokenizer of this "
            "transformers version takes minutes for. Add spaces, or update transformers to version 5."
        )


def untraceable(text: str) -> ValueError:
    """The error for a text whose tokens are not its characters."""
    return ValueError(
        f"The tokens of '{text[:80]}' cannot be traced back to its characters in this text encoder's tokenizer, "
        "so token positions would be a guess. Connect a CLIP that ComfyUI's own nodes load."
    )


def _fast(tokenizer: Any, text: str, kept: slice) -> tuple[list[int], list[tuple[int, int]]]:
    encoding = tokenizer(text, return_offsets_mapping=True)
    ids, offsets = encoding["input_ids"][kept], encoding["offset_mapping"][kept]
    names = tokenizer.convert_ids_to_tokens(ids)
    return ids, [(0, 0) if name == _WORD_START else tuple(pair) for name, pair in zip(names, offsets, strict=True)]


def _slow(tokenizer: Any, text: str, ids: Sequence[int]) -> Offsets:
    names = tokenizer.convert_ids_to_tokens(list(ids))
    if hasattr(tokenizer, "basic_tokenizer"):  # BERT
        words = tokenizer.basic_tokenizer.tokenize
        pieces = _bert_pieces(names, words(text), tokenizer.unk_token)
        return byte_offsets(text, [piece.encode() for piece in pieces], lambda part: " ".join(words(part)))
    encoded = [bytes(tokenizer.byte_decoder[c] for c in name.removesuffix("</w>")) for name in names]
    if getattr(tokenizer, "fix_text", None) is not None:  # CLIP with ftfy
        return byte_offsets(text, encoded, lambda part: tokenizer.fix_text(part).lower())
    if hasattr(tokenizer, "nlp"):  # CLIP
        return byte_offsets(text, encoded, lambda part: " ".join(tokenizer.nlp.tokenize(part)))
    return byte_offsets(text, encoded, lambda part: unicodedata.normalize("NFC", part), spaces=True)  # Qwen


def _bert_pieces(names: Sequence[str], words: Sequence[str], unknown: str) -> Iterator[str]:
    """Yield BERT's tokens as text; the one for what it does not know stands for a whole word."""
    coming, left = iter(words), ""
    for name in names:
        left = left or next(coming, "")
        piece = left if name == unknown else name.removeprefix("##")
        left = left.removeprefix(piece)
        yield piece


def piece_offsets(text: str, pieces: Sequence[str], known: Collection[str]) -> Offsets:
    """Return [start, end) in `text` for each token of a tokenizer that lost white space and unknown characters.

    pieces: the tokens as text. known: the characters that it knows. Raises ValueError as `byte_offsets` does.
    """
    return byte_offsets(text, [piece.encode() for piece in pieces], lambda part: "".join(c for c in part if c in known))


def byte_offsets(text: str, tokens: Sequence[bytes], normalise: Callable[[str], str], spaces: bool = False) -> Offsets:
    """Return [start, end) in `text` for each token, given as UTF-8 bytes of the normalised text.

    normalise: what the tokenizer does to a text before it cuts it. It is applied to each character with its combining
    marks; a word in which that gives other bytes than normalising it whole counts as one character. spaces: whether the
    tokens have the text's white space. Raises ValueError when the tokens together are not the normalised text.
    """
    as_bytes = str.encode if spaces else _visible_bytes
    owners: list[tuple[int, int]] = []
    expected = bytearray()
    for word in re.finditer(r"\S+|\s+" if spaces else r"\S+", text):
        clusters = list(_clusters(word[0], word.start()))
        parts = [as_bytes(normalise(text[start:end])) for start, end in clusters]
        whole = as_bytes(normalise(word[0]))
        if b"".join(parts) != whole:
            clusters, parts = [word.span()], [whole]
        for cluster, part in zip(clusters, parts, strict=True):
            owners += [cluster] * len(part)
            expected += part
    if b"".join(tokens) != bytes(expected):
        raise untraceable(text)
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


def _sentencepiece(tokenizer: Any, text: str, kept: slice) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids and offsets of the host's tokenizer around SentencePiece.

    Where the text has one of its special tokens, the host tokenizes what lies between them piece by piece, without
    begin and end.
    """
    special = tokenizer.special_tokens or {}
    cut = re.split(f"({'|'.join(map(re.escape, special))})", text) if special else [text]
    pairs: list[tuple[int, tuple[int, int]]] = []
    start = 0
    for part in cut:
        if part in special:
            pairs.append((special[part], (start, start + len(part))))
        elif part:
            pairs += [(token, (start + a, start + b)) for token, (a, b) in _pieces(tokenizer.tokenizer, part)]
        start += len(part)
    if len(cut) == 1:
        pairs = [*[(-1, (0, 0))] * tokenizer.add_bos, *pairs, *[(-1, (0, 0))] * tokenizer.add_eos]
    pairs = pairs[kept]
    return [token for token, _ in pairs], [pair for _, pair in pairs]


def _pieces(processor: Any, text: str) -> Iterator[tuple[int, tuple[int, int]]]:
    """Yield the ids of a text and [start, end) of their characters in it."""
    if not hasattr(processor, "normalize"):
        raise ValueError(
            "this text encoder's tokenizer needs sentencepiece 0.2 or newer to tell which characters a token was made "
            "of: python -m pip install -U sentencepiece"
        )
    normalised, where = processor.normalize(text, with_offsets=True)
    plain = {"add_bos": False, "add_eos": False}
    at, left = 0, 0  # the character that comes next; how many of its bytes are still to come
    for token, piece in zip(
        processor.encode(text, **plain), processor.encode(text, out_type=str, **plain), strict=True
    ):
        start = at
        if processor.is_byte(token):
            left = (left or len(normalised[at].encode())) - 1
            yield token, (where[at], where[at + 1])
            at += left == 0
            continue
        at += len(piece)
        if left or normalised[start:at] != piece:
            raise untraceable(text)
        yield token, (where[start], where[at])
    if at != len(normalised):
        raise untraceable(text)
