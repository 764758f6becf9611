"""Words of the prompt that is sampled count more or less, by weights that may change while a sampler runs.

A weight multiplies the attention probabilities of the word's tokens, as in Prompt-to-Prompt's re-weighting, which is to
multiply their values. `positive_rows` runs it in every run of a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.methods.prompt_to_prompt import own_values
from ..attention.attention_call import AttentionCall
from ..families.family import Family, family_of
from ..families.offers import EDITING
from ..families.sites import CROSS
from ..sampling.live_prompt import WEIGHTS_KEY, Reader
from .editors import EditedCall, EditingProcessor
from .positive_rows import EditedStep, PositiveRows
from .word_tables import of_words, read_weight

NAME = "weights of words"
LARGEST = 10.0


def install_weights(patcher: ModelPatcher) -> WeightedWords | None:
    """Let words count more or less in every run of `patcher` (changed in place: pass a clone).

    None for a model that no family knows whose attention can be edited.
    """
    try:
        family = family_of(patcher, EDITING)
    except ValueError:
        return None
    weighted = WeightedWords(family)
    weighted.install(patcher, WEIGHTS_KEY)
    return weighted


@dataclass
class _Step(EditedStep):
    """See `EditedStep`. lengths: id of each positive conditioning with a text -> its rows."""

    lengths: Mapping[Any, int] = field(default_factory=dict)


class WeightedWords(PositiveRows):
    """See `PositiveRows`. weights: of rows of the positive conditionings' text; the others count as they are."""

    def __init__(self, family: Family) -> None:
        super().__init__(NAME, family)
        self.weights: Mapping[int, float] = {}

    def read(self, prompt: Reader, text: str) -> dict[int, float]:
        """What `text` says of words of a prompt: `dog: 1.5, beach: 0.5`.

        Raises ValueError for a word that the prompt lacks, and for what is no weight.
        """
        return of_words(prompt.text, prompt.tokens, text, "weights", _read)

    def begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> _Step | None:
        """See `PositiveRows`."""
        if not self.weights:
            return None
        listed = guider.conds["positive"]
        texts = {cond["uuid"]: cond.get("cross_attn") for cond in listed}
        lengths = {uuid: text.shape[1] for uuid, text in texts.items() if text is not None}
        return _Step(len(x), list(texts), lengths)

    def processor(
        self, step: _Step, call: EditedCall, x: Tensor, context: Tensor, network: nn.Module, options: dict
    ) -> EditingProcessor | None:
        """See `PositiveRows`."""
        rows = []
        for uuid, own in self.conditionings(step, call.count, options):
            if uuid in step.lengths:
                weights = torch.ones(step.lengths[uuid])
                for row, weight in self.weights.items():
                    weights[row] = weight
                rows.append((own, weights))
        return _WeightedValues(call, rows) if rows else None


class _WeightedValues(EditingProcessor):
    """Weighs the values of some rows' tokens in one model call. rows: with the weights [T] of their tokens."""

    def __init__(self, call: EditedCall, rows: Sequence[tuple[slice, Tensor]]) -> None:
        super().__init__(NAME, (CROSS,), call)
        self._rows = rows

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        for rows, weights in self._rows:
            call = call.with_rows(rows, v=own_values(call.of_rows(rows)[2], weights))
        return call


def _read(text: str) -> float:
    weight = read_weight(text)
    if abs(weight) > LARGEST:
        raise ValueError(f"weights: {weight:g} must lie between {-LARGEST:g} and {LARGEST:g}")
    return weight
