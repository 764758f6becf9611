"""Tokenize and encode the prompt as the connected CLIP does, and find the characters that every token was made of.

The host's tokenizer is not imitated: a shallow copy of it runs on the prompt, and its calls of the encoder's own
tokenizer and of the embedding folder are recorded. The host's object is never changed.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import nodes

from ..core.words.prompt_text import check_prompt, plain_text
from ..core.words.subjects import CONTEXT_ENCODERS
from ..core.words.tokens import TokenizedText, TokenSpan, check_slow, token_offsets, token_spans


class _RecordedTokenizer:
    """Stands in for an encoder's own tokenizer and records the texts that it is called with."""

    def __init__(self, tokenizer: Any, calls: list[tuple[str, str]]) -> None:
        self._tokenizer = tokenizer
        self._calls = calls

    def __call__(self, text: str, *args: Any, **kwargs: Any) -> Any:
        self._calls.append(("text", text))
        return self._tokenizer(text, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)


def tokenize(clip: Any, prompt: str) -> dict[str, tuple[TokenSpan, ...]]:
    """Return the tokens of the prompt for each encoder of a connected CLIP, each with its span of characters.

    clip: the host's CLIP object. Keys are the host's ("l", "g", "h", "t5xxl"). Raises ValueError for a prompt that is
    too long or nested too deep, and for an encoder whose token positions cannot be found exactly or that is not there.
    """
    if clip is None:  # what the host's loader gives then
        raise ValueError(
            "the connected CLIP is empty: the checkpoint has no text encoder. Load one with Load CLIP and connect that"
        )
    check_prompt(prompt)
    plain = plain_text(prompt)
    outer = copy.copy(clip.tokenizer)
    calls: dict[str, list[tuple[str, str]]] = {}
    inner: dict[str, Any] = {}
    for name, encoder in vars(clip.tokenizer).items():
        if hasattr(encoder, "tokenize_with_weights") and hasattr(encoder, "tokenizer"):
            key = name.removeprefix("clip_")
            check_slow(encoder.tokenizer, prompt)
            inner[key], calls[key] = encoder, []
            setattr(outer, name, _recorded(encoder, calls[key]))
    options = getattr(clip, "tokenizer_options", None)
    batches = outer.tokenize_with_weights(prompt, True, **({"tokenizer_options": options} if options else {}))
    if set(batches) != set(inner):
        raise ValueError(
            f"The connected CLIP tokenizes for {sorted(batches)} but has tokenizers {sorted(inner)}, so the positions "
            "of the words' tokens cannot be found. Supported: SD 1.x, SD 2.x, SDXL, SD 3, Flux."
        )
    spans = {
        key: token_spans(plain, _tokenized_texts(inner[key], calls[key], [list(chunk) for chunk in batches[key]]))
        for key in batches
    }
    return _cut_to_common_length(spans, batches)


def encode(clip: Any, prompt: str) -> list:
    """The CONDITIONING of a prompt, as the host's own node CLIP Text Encode makes it."""
    return nodes.CLIPTextEncode().encode(clip, prompt)[0]


def _recorded(encoder: Any, calls: list[tuple[str, str]]) -> Any:
    """Return a copy of the encoder that appends to `calls` what it looks up: ("text", ...), ("embedding", ...) or
    ("missing", ...)."""
    twin = copy.copy(encoder)
    twin.tokenizer = _RecordedTokenizer(encoder.tokenizer, calls)

    def try_get_embedding(name: str) -> Any:
        if not name.strip():
            raise ValueError("The prompt has 'embedding:' without a name after it; write embedding:name or remove it.")
        result = encoder._try_get_embedding(name)
        # The text after the name is passed to the tokenizer next; what comes before it belongs to the embedding.
        rest = "".join(result[-1].split())
        typed = "".join(name.split())
        calls.append(
            ("missing" if result[0] is None else "embedding", encoder.embedding_identifier + typed.removesuffix(rest))
        )
        return result

    twin._try_get_embedding = try_get_embedding
    return twin


def _tokenized_texts(
    encoder: Any, calls: list[tuple[str, str]], chunks: list[list[tuple[Any, float, int]]]
) -> list[TokenizedText]:
    """Return the texts that the encoder was given, in order, with the positions of their tokens."""
    groups = _groups(chunks, encoder.embedding_size)
    texts: list[TokenizedText] = []
    word = 0
    for kind, text in calls:
        if kind == "missing":
            texts.append(TokenizedText(text, (), ()))
            continue
        word += 1
        tokens = groups.get(word, [])
        positions = tuple(position for _, position in tokens)
        if kind == "embedding":
            offsets = ((0, len(text)),) * len(tokens)
        else:
            offsets = token_offsets(encoder.tokenizer, text, [token for token, _ in tokens])
        texts.append(TokenizedText(text, offsets, positions))
    if groups and max(groups) > word:
        raise ValueError(
            "The tokenizer of the connected CLIP made tokens that belong to no text of the prompt, so the positions of "
            "the words' tokens cannot be found."
        )
    return texts


def _groups(chunks: list[list[tuple[Any, float, int]]], width: int) -> Mapping[int, list[tuple[Any, int | None]]]:
    """Return the host's word number -> the word's tokens and their positions in the whole sequence.

    The host drops embedding vectors of another width when it encodes; the tokens after them in the chunk move up.
    """
    groups: dict[int, list[tuple[Any, int | None]]] = {}
    base = 0
    for chunk in chunks:
        emitted = base
        for token, _weight, word in chunk:
            dropped = not isinstance(token, int) and token.shape[-1] != width
            if word:
                groups.setdefault(word, []).append((token, None if dropped else emitted))
            emitted += not dropped
        base += len(chunk)
    return groups


def _cut_to_common_length(
    spans: dict[str, tuple[TokenSpan, ...]], batches: Mapping[str, list[list[Any]]]
) -> dict[str, tuple[TokenSpan, ...]]:
    """Drop tokens past the shorter of two CLIP encoders: the host joins them along the features and cuts the longer."""
    lengths = [sum(map(len, batches[key])) for key in batches if key in CONTEXT_ENCODERS]
    shortest = min(lengths, default=0)
    return {
        key: tuple(token for token in found if token.position < shortest) if key in CONTEXT_ENCODERS else found
        for key, found in spans.items()
    }
