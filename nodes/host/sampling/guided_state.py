"""What guidance does in one run of a sampler.

At the guided steps the state is changed before the model sees it; or, where the user wants that or the sampler does not
hand over its state, the model's prediction after guidance by the negative prompt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import comfy.model_sampling
import torch
from torch import Tensor

from ...core.attention.refine import AUTO
from ...core.methods.guidance import (
    PREDICTION,
    RELATIVE,
    AttentionLoss,
    Guidance,
    change,
    guided_steps,
    of_prediction,
    refinement_peaks,
    repeats_at,
)
from ..attention.model_call import aside, step_of
from ..attention.twin_blocks import TARGET, twin_blocks
from ..autograd.latent_gradient import Measured
from ..ui.running_node import show_on_running_node, stop_when_cancelled
from .changed_run import Predict
from .changes import Change, SamplerInputs
from .guidance_report import GuidedRun, GuidedStep

log = logging.getLogger("explainable_latents")

_INACTIVE = "the prompt of the words is not active at this noise level (a timestep range)"
_UNKNOWN = "the run without guidance, with which it is compared, had no attention to the words at this step"
_DONE = "the loss of every picture has been below {until:g}, and was to stop for good"
_UNCALLED = (
    "no prediction was made that could be changed: the sampler has steps of its own, or a node before this one skips "
    "some (LazyCache, for instance: connect it behind this node, or choose act_on state)"
)


class Gradient(Protocol):
    """What measures a loss and its gradient by the sampler's state."""

    def measure(self, call: Callable[[], object], loss: AttentionLoss | None = None) -> Measured | None:
        """What the model call that `call` makes tells; None where it tells nothing. loss: in place of its own."""

    def evaluate(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> Tensor:
        """Such a call, of the guider's positive conditionings alone: their prediction."""


class GuidedState(Change):
    """Moves the state down the gradient of the loss at the guided steps of one run.

    giver: the node. how: it guides. run: where to report. inputs: the host's, of this run; where their `denoise_mask`
    protects the latent, nothing is moved. Raises ValueError for a unit that the model's kind of noise does not have.
    beside: see `model_call.ASIDE`, of the calls whose prediction it changes.
    """

    beside = None

    def __init__(self, giver: str, how: Guidance, gradient: Gradient, run: GuidedRun, inputs: SamplerInputs) -> None:
        self._giver, self._how = giver, how
        self._steps = inputs.steps
        self._guided = guided_steps(self._how.steps, inputs.steps)
        self._peaks = refinement_peaks(self._how.refinement, inputs.steps)
        self._repeats = repeats_at(self._how.repeats, inputs.steps)
        self._done = torch.zeros(1, dtype=torch.bool)  # for each picture, once one has been measured
        self._sampling = inputs.guider.inner_model.model_sampling
        self._sigmas = inputs.sigmas
        self._gradient, self._run = gradient, run
        self._free = inputs.denoise_mask
        self._losses: Mapping[int, Sequence[AttentionLoss]] | None = None
        self._loss: AttentionLoss | None = None  # of the step that goes on, if it has one of its own
        if isinstance(self._sampling, comfy.model_sampling.CONST) and self._how.unit != RELATIVE:
            raise ValueError(
                f"unit {self._how.unit!r} does not fit a flow model, whose picture fades while noise is added: choose "
                f"{RELATIVE!r}"
            )
        super().__init__(())
        if self._how.act_on == PREDICTION:
            run.acting = self
        else:
            self.steps = self._guided

    def compare(self, losses: Mapping[int, Sequence[AttentionLoss]]) -> None:
        """Guide each step by losses of its own, one for each model call of it, and no step without one."""
        self._losses = losses

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Predict) -> Tensor:
        """Measure and move, as often as the step wants it; see `Change`."""
        measured = self._first(step, float(sigma), lambda: predict(x))
        if measured is None:
            return x
        first, state, updates = measured, x, torch.zeros_like(measured.remaining, dtype=torch.int64)
        if step in self._peaks:
            # As published, the loop still moves a picture once after its loss has been found to be small enough.
            active = ~self._done & (measured.remaining > 1 - self._peaks[step])
            for _ in range(self._how.refinements):
                if not active.any():
                    break
                state, updates = self._moved(state, measured, step, sigma, active, updates)
                active = active & (measured.remaining > 1 - self._peaks[step])
                measured = self._measured(lambda state=state: predict(state))
        active = ~self._done
        for more in reversed(range(self._repeats[step])):
            active = self._wanted(active, measured)
            state, updates = self._moved(state, measured, step, sigma, active, updates)
            active = active & ~self._small(measured)
            if not more or not active.any():
                break
            measured = self._measured(lambda state=state: predict(state))
        self._note(step, float(sigma), first, measured, state - x, updates)
        return state if updates.any() else x

    def changed_prediction(
        self,
        guider: Any,
        x: Tensor,
        timestep: Tensor,
        model_options: dict,
        predicted: Callable[[], Tensor],
    ) -> Tensor:
        """The prediction for state `x`, changed by as much as moves an Euler step like the state."""
        sigma = float(timestep.flatten()[0])
        step = step_of(sigma, model_options)
        if step not in self._guided:
            return predicted()
        beside = aside({"model_options": model_options})["model_options"]
        measured = self._first(step, sigma, lambda: self._gradient.evaluate(guider, x, timestep, beside))
        denoised, twin = predicted(), twin_blocks(model_options)
        if measured is None:
            return denoised
        moved = of_prediction(self._step(measured, step, timestep.flatten()[0]), sigma, float(self._sigmas[step + 1]))
        wanted = self._wanted(~self._done, measured).view(-1, *[1] * (moved.ndim - 1))
        moved = torch.where(wanted, moved, torch.zeros_like(moved))
        self._note(step, sigma, first=measured, last=measured, moved=moved, updates=_nonzero(moved).long())
        if not moved.any():
            return denoised
        if twin is None:
            return denoised - moved
        return twin.with_blocks(denoised, {TARGET: denoised[twin.rows(TARGET)] - moved})

    def finish(self) -> None:
        """After a run whose predictions were changed: report the guided steps at which there was none."""
        seen = {each.step for each in self._run.steps}
        missing = (step for step in self._guided if step not in seen)
        self._run.steps += [GuidedStep(step, float(self._sigmas[step]), skipped=_UNCALLED) for step in missing]
        self._run.steps.sort(key=lambda each: each.step)

    def acts_otherwise(self) -> bool:
        """See `Change`: the prediction is changed instead, unless the user wants the state to be."""
        if self._how.act_on != AUTO:
            return False
        self._run.acting, self.steps = self, ()
        self._run.notes.append(
            "this sampler does not hand over its state, so the prediction was changed instead, once at each step"
        )
        return True

    def note(self, text: str) -> None:
        """Also put the text into the report."""
        super().note(text)
        self._run.notes.append(text)

    def _first(self, step: int, sigma: float, call: Callable[[], object]) -> Measured | None:
        """The first measurement of a step; None, and a note why, if there is none."""
        if self._done.all():
            self._run.steps.append(GuidedStep(step, sigma, skipped=_DONE.format(until=self._how.until)))
            return None
        if self._losses is not None:
            if step not in self._losses:
                self._run.steps.append(GuidedStep(step, sigma, skipped=_UNKNOWN))
                return None
            own, before = self._losses[step], sum(each.step == step for each in self._run.steps)
            self._loss = own[min(before, len(own) - 1)]
        measured = self._measured(call)
        if measured is None:
            self._run.steps.append(GuidedStep(step, sigma, skipped=_INACTIVE))
        else:
            self._done = self._done.to(measured.remaining.device).expand(len(measured.remaining))
        return measured

    def _small(self, measured: Measured) -> Tensor:
        """Which pictures [B] need no further change."""
        return measured.remaining < self._how.until

    def _wanted(self, active: Tensor, measured: Measured) -> Tensor:
        """Which of the `active` pictures [B] are to be changed; those that stop for good are, a last time."""
        if not self._how.stop_for_good:
            return active & ~self._small(measured)
        self._done = self._done | self._small(measured)
        return active

    def _limits(self, step: int) -> tuple[float, ...]:
        """Below what the loss is to come at this step."""
        peak = 1.0 if self._run.acting is self else self._peaks.get(step, 1.0)
        limits = 1 - peak, self._how.until
        return tuple(limit for limit in limits if limit > 0)

    def _measured(self, call: Callable[[], object]) -> Measured | None:
        stop_when_cancelled(0, 0)
        return self._gradient.measure(call) if self._loss is None else self._gradient.measure(call, self._loss)

    def _step(self, measured: Measured, step: int, sigma: Tensor) -> Tensor:
        """η ∇_x L [B,C,h,w] where the latent may change."""
        scale = float(self._sampling.calculate_input(sigma, torch.ones_like(sigma)))
        size = self._how.size_at(step, self._steps)
        following = float(self._sigmas[step + 1])
        moved = change(measured.gradient, self._how.unit, size, float(sigma), scale, following)
        return moved if self._free is None else moved * self._free[: len(moved)].to(moved)

    def _moved(
        self, x: Tensor, measured: Measured, step: int, sigma: Tensor, active: Tensor, updates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The state after a move of the `active` pictures [B], and how often each has been moved."""
        moved = self._step(measured, step, sigma)
        active = active & _nonzero(moved)
        rows = active.view(-1, *[1] * (x.ndim - 1))
        return torch.where(rows, (x - moved).to(x), x), updates + active

    def _note(self, step: int, sigma: float, first: Measured, last: Measured, moved: Tensor, updates: Tensor) -> None:
        """Report a step."""
        changed = moved.flatten(1).float().square().mean(1).sqrt() / sigma
        unknown = ~first.gradient.flatten(1).isfinite().all(1)
        enough = self._small(last) | self._done
        measured = first.labels, first.losses, last.losses, first.remaining, self._limits(step)
        done = GuidedStep(step, sigma, *measured, changed, updates, unknown, enough, first.saliency)
        if unknown.any() and not any(bool(each.unknown.any()) for each in self._run.steps if each.unknown is not None):
            log.warning("%s: the gradient is not finite at step %d, where the latent stays as it is", self._giver, step)
        self._run.steps.append(done)
        show_on_running_node("\n".join(done.described()))


def _nonzero(moved: Tensor) -> Tensor:
    """Which of the pictures [B,...] are moved at all."""
    return moved.flatten(1).any(1)
