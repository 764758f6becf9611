"""Ask the host's own text encoder which row of the encoded prompt holds which token.

What is cut off, joined or put one behind the other is decided in the encoder's class. So that class is asked: a shallow
copy of the encoder, in which every part that encodes is replaced by one that returns the positions of its tokens in the
place of vectors, encodes the prompt's real tokens. No weight is read, and nothing of the host's is changed or imitated.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from typing import Any

import torch
from comfy.model_management import intermediate_device
from torch import Tensor

from ..core.words.context_rows import ContextRows

# The number of an encoder's first position; float32 holds whole numbers up to sixteen times as many.
_ENCODER = 2**20


class _Stub:
    """Stands in for a part of a text encoder: what it encodes are the numbers of the tokens' positions."""

    def __init__(self, encoder: Any, first: int, width: int) -> None:
        self._encoder = encoder
        self._first = first
        self._width = width

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode_token_weights(self, chunks: list[list[Any]]) -> tuple[Any, ...]:
        """What the host's encoder returns, with position p as the number first + p in every feature."""
        device = intermediate_device()
        numbers = self._first + torch.arange(sum(map(len, chunks)), dtype=torch.float32, device=device)
        vectors = numbers.unsqueeze(-1).expand(1, *_layers(self._encoder), len(numbers), self._width)
        made = vectors.clone(), torch.zeros(1, self._width, device=device)
        if getattr(self._encoder, "return_attention_masks", False):
            return *made, {"attention_mask": torch.ones(1, len(numbers), dtype=torch.long, device=device)}
        return made


def context_rows(clip: Any, prompt: str, encoders: Collection[str]) -> ContextRows | None:
    """Return what the rows of the encoded prompt hold; None for a CLIP without an encoder.

    encoders: keys of those whose tokens are known. Raises ValueError if the rows cannot be told, or are made by an
    encoder whose tokens are not known.
    """
    model = getattr(clip, "cond_stage_model", None)
    if model is None:
        return None
    tokens = clip.tokenize(prompt)
    twin = copy.copy(model)
    parts = {name: part for name, part in model.named_children() if hasattr(part, "encode_token_weights")}
    for index, (name, part) in enumerate(parts.items(), 1):
        # The host pads and joins the vectors of several encoders by their widths; others may be narrow.
        joined = len(parts) > 1 and not _layers(part)
        twin.__dict__[name] = _Stub(part, index * _ENCODER, _width(part) if joined else 1)
    if not parts:  # the encoder hands the tokens themselves to the network
        tokens = {key: [[(_ENCODER + i, 1.0) for i in range(len(chunks[0]))]] for key, chunks in tokens.items()}
    made = twin.encode_token_weights(tokens)
    names = [name.removeprefix("clip_") for name in parts] or list(tokens)
    length, extra = made[0].shape[1], made[2] if len(made) > 2 else {}
    if "t5xxl_ids" in extra:  # the network's own adapter makes one row for each of these and reads nothing else
        held = {"t5xxl": {i: (i,) for i in range(len(extra["t5xxl_ids"]))}}
    else:
        held = _held(made[0][0], names, clip)
    unknown = sorted(set(held) - set(encoders))
    if unknown:
        raise ValueError(
            f"the connected CLIP reads the prompt with {unknown}, which is given another text, so the rows of the "
            "words cannot be told"
        )
    return ContextRows(length, held)


def _held(rows: Tensor, names: list[str], clip: Any) -> dict[str, dict[int, tuple[int, ...]]]:
    """Encoder key -> position -> the rows [T,d] that have its number; a row of zeros is the host's own padding."""
    held: dict[str, dict[int, tuple[int, ...]]] = {}
    columns = torch.unique_consecutive(rows.float().cpu(), dim=1)
    for row, numbers in enumerate(columns.tolist()):
        for number in dict.fromkeys(numbers):
            index, position = divmod(int(number), _ENCODER)
            if number != int(number) or (number and not 0 < index <= len(names)):
                raise ValueError(
                    f"the text encoder of the connected CLIP ({type(clip.cond_stage_model).__name__}) does not say "
                    "which of its rows hold which token: another node pack may have changed how it encodes"
                )
            if number:
                there = held.setdefault(names[index - 1], {})
                there[position] = (*there.get(position, ()), row)
    return held


def _layers(encoder: Any) -> tuple[int, ...]:
    """The dimension of layers in what an encoder returns, () if it returns one layer."""
    if isinstance(encoder.layer, list):
        return (len(encoder.layer),)
    return (encoder.num_layers,) if encoder.layer == "all" else ()


def _width(encoder: Any) -> int:
    return encoder.transformer.get_input_embeddings().weight.shape[-1]
