"""Characters of a text that each of its tokens was made of, for Hugging Face tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def offsets_from_tokens(tokenizer: Any, text: str, tokens: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Return [start, end) in text for each of `tokens`, the ids the host got for it without begin and end tokens.

    Raises ValueError when the tokenizer itself answers with other ids.
    """
    encoding = tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    kept = [k for k, special in enumerate(encoding["special_tokens_mask"]) if not special]
    if [encoding["input_ids"][k] for k in kept] != list(tokens):
        raise ValueError(
            f"The host's tokenizer and its own Hugging Face tokenizer disagree on '{text[:80]}'; token positions would "
            "be a guess. Supported: SD 1.x, SD 2.x, SDXL, SD 3, Flux."
        )
    return tuple(tuple(encoding["offset_mapping"][k]) for k in kept)
