"""Where ComfyUI itself cuts a prompt into wrong tokens: Llama's tokenizer as transformers 5 loads it.

It puts another rule for white space in the place of the file's own, so that "a red dog" becomes "are", "dd", "og", and
most characters that are not ASCII are lost. The encoder gets these tokens; the positions are theirs, and the user is
told.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from ..core.words.token_offsets import Offsets, piece_offsets


def mistaken_offsets(tokenizer: Any, text: str, tokens: list[int]) -> tuple[Offsets, str] | None:
    """Return [start, end) in `text` for each of `tokens`, and what to tell the user; None if the tokens are right.

    tokenizer: that of an encoder; only one of Llama that was read from a file is looked at. tokens: the ids of `text`
    without begin and end. Raises ValueError for wrong tokens that cannot be traced back to characters.
    """
    file = Path(getattr(tokenizer, "name_or_path", "")) / "tokenizer.json"
    if not type(tokenizer).__name__.startswith("Llama") or not file.is_file():
        return None
    reference, known = _as_its_file_says(str(file))
    if tokens == reference(text, add_special_tokens=False)["input_ids"][: len(tokens)]:
        return None
    note = (
        "note: with the installed transformers, ComfyUI's own tokenizer of Llama joins words of this prompt, and the "
        "picture is made of these tokens; a word's positions are those of all tokens that have a part of it."
    )
    return piece_offsets(text, tokenizer.convert_ids_to_tokens(tokens), known), note


@lru_cache(maxsize=1)
def _as_its_file_says(file: str) -> tuple[PreTrainedTokenizerFast, frozenset[str]]:
    """The tokenizer as its file describes it, and the tokens of one character that it has."""
    reference = PreTrainedTokenizerFast(tokenizer_file=file)
    return reference, frozenset(token for token in reference.get_vocab() if len(token) == 1)
