"""The run without guidance that a loss is relative to, made beforehand from the same noise.

It is sampled until the last guided step, by the same sampler with the model as it is patched, but without what nodes
change between its steps; at the guided steps the attention of its state is noted.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import Tensor

from ...core.attention.refine import AUTO
from ...core.methods.guidance import PREDICTION, Guidance, guided_steps
from ...core.methods.self_guidance import Noted, SelfGuidance
from ..attention.model_call import EDITED, aside, step_of
from ..autograd.latent_gradient import LatentGradient
from ..ui.running_node import stop_when_cancelled
from .changed_run import Predict
from .changes import Change, SamplerInputs
from .guidance_report import GuidedRun


class AllNoted(Exception):
    """The last guided step has been noted: the rest of the run is left out."""


def losses_beside_plain_run(
    loss: SelfGuidance, how: Guidance, gradient: LatentGradient, run: GuidedRun, inputs: SamplerInputs
) -> dict[int, list[SelfGuidance]]:
    """The losses of each guided step, beside what a plain run has there; without steps where the words are inactive.

    Of a step there is one, or one for each model call where predictions are changed.

    gradient: whose measurements are made. run: the one to be guided. Raises ValueError as the samplers do.
    """
    steps = guided_steps(how.steps, inputs.steps)
    if not steps:
        return {}
    watching, acting = PlainRun(loss, how.act_on, gradient, run, steps), run.acting
    run.acting = watching if how.act_on == PREDICTION else None
    try:
        with suppress(AllNoted):
            inputs.watch(watching)
    finally:
        run.acting = acting
    return watching.losses


class PlainRun(Change):
    """Changes nothing, and notes at `noted` steps what `loss` needs; losses: see `losses_beside_plain_run`.

    form: of the guidance, of `ACTS_ON`; it notes the states that guidance in this form is to measure. run: the one to
    be guided. beside: see `GuidedState`.
    """

    beside = EDITED

    def __init__(
        self, loss: SelfGuidance, form: str, gradient: LatentGradient, run: GuidedRun, noted: tuple[int, ...]
    ) -> None:
        super().__init__(() if form == PREDICTION else noted)
        self.losses: dict[int, list[SelfGuidance]] = {}
        self._loss, self._form, self._gradient, self._run = loss, form, gradient, run
        self._noted = noted

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Predict) -> Tensor:
        """See `Change`."""
        self._note(step, lambda: predict(x))
        if step == self._noted[-1]:
            raise AllNoted
        return x

    def changed_prediction(
        self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict, predicted: Callable[[], Tensor]
    ) -> Tensor:
        """See `GuidedState`."""
        step = step_of(float(timestep.flatten()[0]), model_options)
        if step is not None and step > self._noted[-1]:
            raise AllNoted
        if step in self._noted:
            beside = aside({"model_options": model_options})["model_options"]
            self._note(step, lambda: self._gradient.evaluate(guider, x, timestep, beside))
        return predicted()

    def acts_otherwise(self) -> bool:
        """See `Change`."""
        if self._form != AUTO:
            return False
        self._run.acting, self.steps = self, ()
        return True

    def note(self, text: str) -> None:
        """Of the run that is guided the same is noted."""

    def _note(self, step: int, call: Callable[[], object]) -> None:
        stop_when_cancelled(0, 0)
        noted = Noted(self._loss)
        if self._gradient.measure(call, noted) is not None:
            self.losses.setdefault(step, []).append(self._loss.beside(noted.found))
