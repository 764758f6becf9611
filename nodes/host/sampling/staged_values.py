"""Values of a run that are changed while it goes on: its guidance scale, a blend of two prompts, its words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import nodes
from comfy.samplers import CFGGuider, encode_model_conds
from torch import Tensor

from ...core.words.prompt_text import MAX_CHARACTERS
from ..pauses.messages import BLEND, CFG, PROMPT, WEIGHTS, Value
from .live_prompt import MOST_WEIGHTS, LivePrompt
from .trial_run import near

MOST_CFG = 100.0
_NUMBERS = {CFG: (0.0, MOST_CFG, 0.1), BLEND: (0.0, 1.0, 0.05)}
_LETTERS = {PROMPT: MAX_CHARACTERS, WEIGHTS: MOST_WEIGHTS}


def check_alternative(alternative: list | None) -> None:
    """Raise ValueError for a CONDITIONING that is no single prompt."""
    if alternative is not None and (len(alternative) != 1 or alternative[0][0] is None):
        raise ValueError(
            f"alternative holds {len(alternative)} prompts: connect the output of one text encoder, not combined ones"
        )


class StagedValues:
    """The values of one sampler run that may change between its model calls.

    guider: the host's. alternative: the CONDITIONING to blend with, or None. noise, arguments: what the host encoded
    the run's conditionings with. prompt: what can be done to its words.
    """

    def __init__(
        self,
        guider: Any,
        alternative: list | None,
        noise: Tensor,
        arguments: Mapping[str, Any],
        prompt: LivePrompt,
    ) -> None:
        self._guider = guider
        self._alternative = alternative
        self._noise = noise
        self._arguments = arguments
        self._prompt = prompt
        self._positive = getattr(guider, "conds", {}).get("positive", [])
        self._values: dict[str, Value] = {}
        if _has_scale(guider):
            self._values[CFG] = float(guider.cfg)
        texts = [cond.get("cross_attn") for cond in self._positive]
        if alternative is not None and texts and all(text is not None for text in texts):
            self._values[BLEND] = 0.0
        if prompt.can_exchange:
            self._values[PROMPT] = prompt.own
        if prompt.can_weigh:
            self._values[WEIGHTS] = ""
        self._first = guider.cfg if CFG in self._values else None
        self._waiting: dict[str, Value] = {}
        self._from = float("inf")
        self._level = float("inf")

    def offered(self, tried: Mapping[str, Value] | None = None) -> list[dict[str, Any]]:
        """The values that can be changed, see `pauses.messages`. tried: those that are shown instead of the run's."""
        values = {**self._now, **self._meant(tried or {})}
        return [{"name": name, "value": value, **_range(name)} for name, value in values.items()]

    def check(self, values: Mapping[str, Value]) -> None:
        """Raise ValueError for recorded values that this run does not have, or out of their range."""
        for name, value in values.items():
            if name not in self._values:
                raise ValueError(
                    f"answers: this run has no {name!r} to change, only {', '.join(self._values) or 'nothing'}"
                )
            low, high, _ = _NUMBERS.get(name, (value, value, None))
            if not low <= value <= high:
                raise ValueError(f"answers: {name} {value} must lie between {low:g} and {high:g}")
        self.check_words(values)

    def check_words(self, values: Mapping[str, Value]) -> None:
        """Raise ValueError for a prompt and weights of words that do not go together. Any thread may call it."""
        now = {**self._now, **self._meant(values)}
        self._prompt.check(now.get(PROMPT, self._prompt.own), now.get(WEIGHTS, ""))

    def stage(self, values: Mapping[str, Value], level: float, entered: float) -> dict[str, Value]:
        """Have values changed from the step on that begins at noise level `entered`; returns those that do change.

        level: at which the step before begins. Where the sampler was not called there, it makes steps of its own, and
        the values change at its next model call. A new text is encoded at once. Raises ValueError as `check_words` and
        `LivePrompt.exchanged`.
        """
        self.check_words(values)
        values = self._meant(values)
        changed = {name: value for name, value in values.items() if value != self._now[name]}
        if PROMPT in changed:
            self._texts(changed[PROMPT])
        self._waiting.update(changed)
        self._from = entered * (1 + 1e-4) if near(self._level, level) else float("inf")
        return changed

    def before_call(self, level: float) -> None:
        """A model call at this noise level follows."""
        self._level = level
        if self._waiting and level <= self._from:
            changed, self._waiting = self._waiting, {}
            self._values.update(changed)
            self._apply(self._values, changed)

    @contextmanager
    def trying(self, values: Mapping[str, Value]) -> Iterator[str]:
        """Inside the block the run has these values, beside those that were chosen; gives the text of its prompt."""
        tried = {**self._now, **self._meant(values)}
        kept = getattr(self._guider, "cfg", None), self._guider.conds["positive"]
        weights = self._prompt.weights
        try:
            self._apply(tried, {name: value for name, value in tried.items() if value != self._values[name]})
            yield tried.get(PROMPT, self._prompt.own)
        finally:
            if CFG in tried:
                self._guider.cfg = kept[0]
            self._guider.conds["positive"] = kept[1]
            self._prompt.weights = weights

    def restore(self) -> None:
        """Leave the guider as it was."""
        if self._first is not None:
            self._guider.cfg = self._first
        self._prompt.weights = {}

    def _meant(self, values: Mapping[str, Value]) -> dict[str, Value]:
        """Values with the text that an empty prompt stands for."""
        return {name: self._prompt.text(value) if name == PROMPT else value for name, value in values.items()}

    @property
    def _now(self) -> dict[str, Value]:
        return {**self._values, **self._waiting}

    def _apply(self, values: Mapping[str, Value], changed: Mapping[str, Value]) -> None:
        """Give the run what has changed among all its values."""
        if CFG in changed:
            self._guider.cfg = values[CFG]
        if BLEND in changed or PROMPT in changed:
            self._guider.conds["positive"] = self._positives(
                values.get(BLEND, 0.0), values.get(PROMPT, self._prompt.own)
            )
        if WEIGHTS in changed or PROMPT in changed:
            self._prompt.weights = self._prompt.check(values.get(PROMPT, self._prompt.own), values.get(WEIGHTS, ""))

    def _texts(self, prompt: str) -> list[dict]:
        """The positive conditionings with this text."""
        return self._positive if prompt == self._prompt.own else self._prompt.exchanged(self._positive, prompt)

    def _positives(self, blend: float, prompt: str) -> list[dict]:
        """The positive conditionings with other texts: averaged by the host's own node, encoded by the host."""
        conds = self._texts(prompt)
        if blend:
            average = nodes.ConditioningAverage()
            pairs = [
                average.addWeighted([[cond["cross_attn"], cond]], self._alternative, 1.0 - blend)[0][0]
                for cond in conds
            ]
            conds = [{**options, "cross_attn": context} for context, options in pairs]
        if conds is self._positive:
            return conds
        model, device = self._guider.inner_model, self._guider.model_patcher.load_device
        return encode_model_conds(model.extra_conds, conds, self._noise, device, "positive", **self._arguments)


def _range(name: str) -> dict[str, Any]:
    if name in _LETTERS:
        return {"letters": _LETTERS[name]}
    return dict(zip(("low", "high", "step"), _NUMBERS[name], strict=True))


def _has_scale(guider: Any) -> bool:
    """Whether the guider uses one guidance scale, between a positive and a negative prompt."""
    own = type(guider).predict_noise is CFGGuider.predict_noise
    return own and {"positive", "negative"} <= set(guider.conds)
