"""What a sampler function does on a small latent, with a linear denoiser in place of the network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import comfy.samplers
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


class LinearModel:
    """Stands in for the host's `model` as a sampler function is given it: the same attributes, another prediction.

    denoiser: the prediction for a state [B,C,...] and noise levels that broadcast to it.
    """

    def __init__(self, model: Any, denoiser: Denoiser) -> None:
        self._model = model
        self._denoiser = denoiser

    def __call__(
        self, x: Tensor, sigma: Tensor, *args: Any, model_options: dict | None = None, **kwargs: Any
    ) -> Tensor:
        """Apply the host's own guidance to the denoiser, so that samplers which hook into it (CFG++) find it."""
        level = sigma.view(-1, *[1] * (x.ndim - 1))
        options = dict(model_options or {})
        options["sampler_calc_cond_batch_function"] = lambda batch: [self._denoiser(batch["input"], level)] * 2
        return comfy.samplers.sampling_function(self._model, x, sigma, [], [], 2.0, model_options=options)

    @property
    def inner_model(self) -> LinearModel:
        """A stand-in for the model inside the host's model."""
        return LinearModel(self._model.inner_model, self._denoiser)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


@dataclass
class TrialRun:
    """A trial run: the states that the sampler function handed to the model, their noise levels, and its callbacks.

    callbacks: step number -> how many model calls came before the step's callback, and the noise level it reported.
    end: the result, or the state where the run was stopped.
    """

    states: list[Tensor] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    callbacks: dict[int, tuple[int, float]] = field(default_factory=dict)
    end: Tensor | None = None

    def step_calls(self, sigmas: Tensor) -> tuple[tuple[int, ...] | None, ...]:
        """Make two guesses at which model call gets the state that enters each step; a list of call numbers each.

        The last call before the step's callback, and the last call at the step's noise level. A guess is None where a
        step has no such call.
        """
        levels = [float(sigma) for sigma in sigmas[:-1]]
        guesses = (
            [self._before_callback(step, level) for step, level in enumerate(levels)],
            [self._last_at(level) for level in levels],
        )
        return tuple(None if None in guess else tuple(guess) for guess in guesses)

    def _before_callback(self, step: int, level: float) -> int | None:
        calls, reported = self.callbacks.get(step, (0, level))
        return calls - 1 if calls and (near(reported, level) or near(self.levels[calls - 1], level)) else None

    def _last_at(self, level: float) -> int | None:
        return next((i for i in reversed(range(len(self.levels))) if near(self.levels[i], level)), None)


def near(level: float, other: float) -> bool:
    """Whether two noise levels are the same, to a thousandth."""
    return abs(level - other) <= 1e-3 * other
