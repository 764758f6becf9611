"""Find out, on a small latent, how a sampler function's state can be changed between its steps.

The network is replaced by linear denoisers for which a sampler's memory of earlier steps makes no difference: there a
run depends on its present state alone. So the test is: handed the state of another run, it must become that other run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .intercepted_model import BeforeCall, InterceptedModel, SamplerStopped, stop_at
from .noise_source import MakeNoise, NoiseSource, independent_noise, makes_noise, noise_makers
from .trial_run import LinearModel, TrialRun

# Trials have all channels, but at most so many latent pixels along each side: enough for samplers that use the spread
# of the noise.
_SIDE = 8
# Options that fit the real run's state alone: its noise, and the states with which `sample_two_steps` begins.
_MADE_FOR_THE_RUN = ("noise_sampler", "recorded_start")
# How a function may fail on so small a state, or when it is asked for a run that is too short for it.
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass(frozen=True)
class StepCall:
    """A model call that the sampler function makes on its own state.

    step: the step that the state enters. level: the noise level of the call.
    """

    step: int
    level: float


@dataclass(frozen=True)
class InPlace:
    """How to change the state without interrupting the sampler function: by overwriting what it hands to the model.

    calls: number of the model call -> the step whose state it gets. total: number of all model calls of the run.
    """

    calls: dict[int, StepCall]
    total: int


@dataclass(frozen=True)
class Segment:
    """A part of a run: the sampler function is restarted with the state that enters step `start`.

    It gives the state that enters step `stop`, after as many model calls as `calls` says. by_euler: the function cannot
    make this part, a single step, which Euler's method makes instead.
    """

    start: int
    stop: int
    calls: int
    by_euler: bool = False


class Trial:
    """Trial runs of a sampler function with the noise levels, seed and options of a real run.

    model: as the function is given it. x: the state [B,C,...] that the real run begins with. Raises ValueError when the
    function fails on a small state.
    """

    def __init__(self, function: Callable, model: Any, x: Tensor, sigmas: Tensor, seed: Any, options: dict) -> None:
        self._function = function
        self._model = model
        self._sigmas = sigmas.detach().float().cpu()
        self._seed = seed
        self._options = {key: value for key, value in options.items() if key not in _MADE_FOR_THE_RUN}
        self._makes_noise = makes_noise(function)
        self._generators = [x.device] if x.is_cuda and torch.cuda.is_initialized() else []
        shape = (1, x.shape[1], *(min(_SIDE, side) for side in x.shape[2:]))
        clean, noise, other = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        # Some samplers remember predictions, others the noise in them: the first denoiser always predicts the same
        # picture, the second one always the same noise.
        self._denoisers = (lambda x, sigma: clean + 0 * x, lambda x, sigma: x - sigma * noise)
        self._starts = clean + self._sigmas[0] * noise, clean + 10 * self._sigmas[0] * other
        self._pairs: dict[int, tuple[TrialRun, TrialRun]] = {}
        try:
            self._pair(0)
        except _FAILURES as failure:
            name = getattr(function, "__name__", type(function).__name__)
            raise ValueError(
                f"the sampler {name} cannot be tried on a small latent, which shows how its state can be replaced "
                f"({failure}). Choose a sampler of ComfyUI: euler, ddpm, dpmpp_2m, ..."
            ) from failure

    def follows_schedule(self) -> bool:
        """Whether the function makes the steps of the schedule and not steps of its own."""
        return any(self._pair(0)[0].step_calls(self._sigmas))

    def in_place(self, steps: tuple[int, ...]) -> InPlace | None:
        """Find the model calls that get the function's own state at `steps`; None if it only shows copies of it.

        steps: ascending, without the finished latent. In a trial the states of those calls are overwritten with those
        of another run and back.
        """
        for kind in range(len(self._denoisers)):
            run = self._pair(kind)[0]
            for numbers in filter(None, run.step_calls(self._sigmas)):
                calls = {numbers[step]: StepCall(step, run.levels[numbers[step]]) for step in steps}
                if len(calls) == len(steps) and self._becomes_the_other(kind, tuple(calls)):
                    return InPlace(calls, len(run.states))
        return None

    def segments(self, steps: tuple[int, ...]) -> tuple[list[Segment], MakeNoise | None] | None:
        """Divide the run into segments that begin at each of `steps`, and find what has to make their noise.

        None if that is impossible. Each segment has to pass through the states that the undivided run has at the same
        steps.
        """
        total = len(self._sigmas) - 1
        starts = sorted({0, *steps})
        bounds = list(zip(starts, [*starts[1:], total], strict=True))
        for kind in range(len(self._denoisers)):
            run = self._run(kind, self._starts[0], self._sigmas, noise=None)
            for guess, numbers in enumerate(run.step_calls(self._sigmas)):
                if numbers is None:
                    continue
                states = [*(run.states[number] for number in numbers), run.end]
                for make in noise_makers(self._function):
                    source = make and make(states[0], self._sigmas, self._seed)
                    segments = [self._segment(kind, guess, states, *bound, source) for bound in bounds]
                    if None not in segments:
                        return segments, make
        return None

    def _pair(self, kind: int) -> tuple[TrialRun, TrialRun]:
        """A run from each of the two starts, with one of the denoisers; made once."""
        if kind not in self._pairs:
            runs = (self._run(kind, start, self._sigmas, noise=self._any_noise()) for start in self._starts)
            self._pairs[kind] = tuple(runs)
        return self._pairs[kind]

    def _any_noise(self) -> NoiseSource | None:
        """A noise source that is made quickly and repeats itself, for runs that are compared with each other."""
        return independent_noise(self._starts[0], self._sigmas, self._seed) if self._makes_noise else None

    def _run(
        self, kind: int, x: Tensor, sigmas: Tensor, before: BeforeCall | None = None, *, noise: NoiseSource | None
    ) -> TrialRun:
        """Make one run with denoiser `kind` from `x`; the host's random generators are left as they are.

        noise: handed to the function; it makes its own where this is None.
        """
        run = TrialRun()

        def record(number: int, state: Tensor, sigma: Tensor, arguments: dict) -> None:
            run.states.append(state.clone())
            run.levels.append(float(sigma.flatten()[0]))
            if before is not None:
                before(number, state, sigma, arguments)

        def callback(report: dict) -> None:
            run.callbacks.setdefault(report["i"], (len(run.states), float(report.get("sigma", torch.nan))))

        model = InterceptedModel(LinearModel(self._model, self._denoisers[kind]), record)
        extra_args = {"model_options": {"transformer_options": {"sample_sigmas": sigmas}}, "seed": self._seed}
        with torch.random.fork_rng(self._generators):
            try:
                run.end = self._function(
                    model,
                    x.clone(),
                    sigmas.clone(),
                    extra_args=extra_args,
                    callback=callback,
                    disable=True,
                    **self._options,
                    **({} if noise is None else {"noise_sampler": noise}),
                )
            except SamplerStopped as stopped:
                run.end = stopped.x.clone()
        return run

    def _becomes_the_other(self, kind: int, calls: tuple[int, ...]) -> bool:
        """Whether a run goes on as another one where its state is overwritten at `calls` with the other's, and back."""
        runs = self._pair(kind)
        now, as_expected = 0, True

        def overwrite(number: int, x: Tensor, sigma: Tensor, arguments: dict) -> None:
            nonlocal now, as_expected
            if number >= len(runs[0].states):
                as_expected = False
                return
            as_expected = as_expected and _same(x, *(runs[i].states[number] for i in (now, 1 - now)))
            if number in calls:
                now = 1 - now
                x.copy_(runs[now].states[number])

        end = self._run(kind, self._starts[0], self._sigmas, overwrite, noise=self._any_noise()).end
        return as_expected and _same(end, runs[now].end, runs[1 - now].end)

    def _segment(
        self, kind: int, guess: int, states: list[Tensor], start: int, stop: int, source: NoiseSource | None
    ) -> Segment | None:
        """The segment between two steps; None if neither the function nor Euler's method passes through `states`."""
        sigmas, way = self._sigmas[start:], states[start : stop + 1]
        try:
            whole = self._run(kind, way[0], sigmas, noise=self._any_noise())
            numbers, ends = whole.step_calls(sigmas)[guess], stop == len(self._sigmas) - 1
            calls = len(whole.states) if ends else numbers[stop - start]
            run = self._run(kind, way[0], sigmas, None if ends else stop_at(calls), noise=source)
            passed = [*(run.states[number] for number in numbers[: stop - start]), run.end]
            if all(_arrives(x, there, way[0], 0.1) for x, there in zip(passed[1:], way[1:], strict=True)):
                return Segment(start, stop, calls)
        except _FAILURES:
            pass
        end = euler_step(way[0], self._denoisers[kind](way[0], sigmas[0]), sigmas[0], sigmas[1])
        # Some functions end a little above the level zero: that may be a good part of a last, short step.
        by_euler = stop == start + 1 and _arrives(end, way[1], way[0], 0.1 if sigmas[1] else 0.5)
        return Segment(start, stop, 1, by_euler=True) if by_euler else None


def euler_step(x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """State at `sigma_next` from state `x` [B,C,...] at `sigma` and the prediction for it, by Euler's method."""
    return denoised + (x - denoised) * (sigma_next / sigma)


def _same(x: Tensor, expected: Tensor, other: Tensor) -> bool:
    """Whether `x` is `expected` and not `other`, allowing for the rounding of float32."""
    allowed = 1e-3 * (expected - other).abs().max() + 1e-4 * expected.abs().max()
    return x.shape == expected.shape and bool((x - expected).abs().max() <= allowed)


def _arrives(x: Tensor, target: Tensor, start: Tensor, short: float) -> bool:
    """Whether `x` has come from `start` to `target`, except for at most the share `short` of the way."""
    return x.shape == target.shape and bool((x - target).abs().max() <= short * (target - start).abs().max())
