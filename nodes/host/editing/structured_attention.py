"""Structured Diffusion in every run of a model: values of phrases that were encoded alone, see `positive_rows`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.methods.structured_diffusion import PhraseAlone, told_context
from ...core.words.subjects import shorten
from ..attention.attention_call import AttentionCall
from ..attention.model_call import OURS
from ..attention.twin_blocks import TARGET, twin_blocks
from ..families.family import Family, family_of
from ..families.offers import EDITING
from ..families.sites import CROSS
from ..same_prompt import Encoded
from .editors import EditedCall, EditingProcessor
from .positive_rows import EditedStep, PositiveRows

NAME = "Structured Diffusion"
WRAPPER_KEY = OURS + "structured_diffusion"


def install_structured_diffusion(
    patcher: ModelPatcher, prompt: str, encoded: Encoded, phrases: Sequence[PhraseAlone], strength: float = 1.0
) -> None:
    """Let every sampler that runs `patcher` (changed in place: pass a clone) tell places what phrases mean alone.

    prompt, encoded: the text and its encoding, by which the sampler's conditionings are known. phrases: of that text;
    without any, or with a strength of 0, nothing is installed. strength: 0 to 1, see `told_context`. Raises ValueError
    for another strength and for a model that no family knows whose attention can be edited; the samplers raise it when
    none of their positive conditionings holds the prompt.
    """
    if not 0 <= strength <= 1:
        raise ValueError(f"strength {strength} is no share: give 0 (off) to 1 (as published)")
    family = family_of(patcher, EDITING)
    if not phrases or strength == 0:
        return
    _Structured(prompt, encoded, phrases, strength, family).install(patcher, WRAPPER_KEY)


@dataclass
class _Step(EditedStep):
    """See `EditedStep`.

    target: the rows of a conditioning whose text is the prompt, of a twin run those of the target. lengths: id of each
    positive conditioning that holds the prompt -> rows of its text.
    """

    target: slice
    lengths: Mapping[Any, int]


class _Structured(PositiveRows):
    """See `PositiveRows`."""

    def __init__(
        self, prompt: str, encoded: Encoded, phrases: Sequence[PhraseAlone], strength: float, family: Family
    ) -> None:
        super().__init__(NAME, family)
        self._prompt = prompt
        self._encoded = encoded
        self._phrases = phrases
        self._strength = strength

    def begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> _Step:
        """See `PositiveRows`. Raises ValueError when no conditioning holds the prompt."""
        blocks, listed = twin_blocks(model_options), guider.conds.get("positive") or []
        target = slice(0, len(x)) if blocks is None else blocks.rows(TARGET)
        lengths = {}
        for cond in listed:
            text = cond.get("cross_attn") if blocks is None else blocks.text(cond, TARGET)
            if text is not None and self._encoded.is_in(text):
                lengths[cond["uuid"]] = text.shape[1]
        if not lengths:
            raise ValueError(
                f"{NAME} was given phrases of '{shorten(self._prompt)}', but this is not what is sampled. Connect the "
                "same text and the same CLIP to Parse Subjects, to this node and to the sampler's positive prompt"
            )
        return _Step(len(x), [cond["uuid"] for cond in listed], target, lengths)

    def processor(
        self, step: _Step, call: EditedCall, x: Tensor, context: Tensor, network: nn.Module, options: dict
    ) -> EditingProcessor | None:
        """See `PositiveRows`."""
        told = []
        for uuid, rows in self.conditionings(step, call.count, options):
            if uuid in step.lengths:
                own = slice(rows.start + step.target.start, rows.start + step.target.stop)
                # beside a longer prompt the host repeats a text
                texts = context[own].split(step.lengths[uuid], 1)
                told.append((own, torch.cat([told_context(each, self._phrases, self._strength) for each in texts], 1)))
        return ExchangedValues(call, told, self.family.value_layers(network)) if told else None


class ExchangedValues(EditingProcessor):
    """Exchanges the values of some rows in one model call.

    told: rows, and what their values are made of [B,T,d]. layers: what makes values, by the name of the site.
    """

    edits_replaced = True

    def __init__(
        self,
        call: EditedCall,
        told: Sequence[tuple[slice, Tensor]],
        layers: Mapping[str, Callable[[Tensor], Tensor]],
    ) -> None:
        super().__init__(NAME, (CROSS,), call)
        self._told = told
        self._layers = layers

    def edited(self, call: AttentionCall) -> AttentionCall:
        """See `EditingProcessor`."""
        for rows, context in self._told:
            call = call.with_rows(rows, v=self._layers[call.site.name](context.to(call.v)))
        return call
