"""Sample a few numbers with a sampler function to find out which of its model calls carries the state of which step.

The network is replaced by linear denoisers for which the samplers' memory of earlier steps does not matter. There a
run depends on its present state alone: handed the state of another run, it must become that other run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
from torch import Tensor

from .linear_model import LinearModel
from .noise_source import MakeNoise, NoiseSource, independent_noise, makes_noise, noise_makers
from .watched_model import Before, Reached, WatchedModel, stop_at

# Trials have all channels, but only so many numbers along each side: enough for samplers that use the noise's spread.
_SIDE = 8
# How a function may fail on so small a state, or when it is asked for a run that is too short for it.
_FAILURES = (ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


@dataclass
class Record:
    """What a trial run did: the states that it handed to the model, their noise levels, and its callbacks.

    told: for each step that the callback named, how many calls came before it and the noise level that it gave.
    end: the result, or the state where the run was stopped.
    """

    states: list[Tensor] = field(default_factory=list)
    levels: list[float] = field(default_factory=list)
    told: dict[int, tuple[int, float]] = field(default_factory=dict)
    end: Tensor | None = None

    def places(self, sigmas: Tensor) -> tuple[tuple[int, ...] | None, ...]:
        """Two guesses at the calls that carry the states of all steps, None where a step has no such call.

        The last call before the step's callback, and the last call at its noise level.
        """
        levels = [float(sigma) for sigma in sigmas[:-1]]
        guesses = (
            [self._before_callback(step, level) for step, level in enumerate(levels)],
            [self._last_at(level) for level in levels],
        )
        return tuple(None if None in guess else tuple(guess) for guess in guesses)

    def _before_callback(self, step: int, level: float) -> int | None:
        calls, told = self.told.get(step, (0, level))
        return calls - 1 if calls and (near(told, level) or near(self.levels[calls - 1], level)) else None

    def _last_at(self, level: float) -> int | None:
        return next((i for i in reversed(range(len(self.levels))) if near(self.levels[i], level)), None)


@dataclass(frozen=True)
class Handover:
    """A model call that is made on the sampler function's own state: the step that this state enters, and its level."""

    step: int
    level: float


@dataclass(frozen=True)
class Piece:
    """Part of a run that the sampler function begins anew at step `start`, up to the state that enters step `stop`.

    call: number of the model call that it is stopped at, None to let it run to its end. alone: whether the function can
    make this piece; if not, the piece is a single step, for Euler's method.
    """

    start: int
    stop: int
    call: int | None
    alone: bool = True


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
        self._options = {key: value for key, value in options.items() if key != "noise_sampler"}  # made for `x`
        self._makes_noise = makes_noise(function)
        self._generators = [x.device] if x.is_cuda and torch.cuda.is_initialized() else []
        shape = (1, x.shape[1], *(min(_SIDE, side) for side in x.shape[2:]))
        clean, noise, other = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
        # Some samplers remember predictions, others the noise in them: here these, there those are always the same.
        self._denoisers = (lambda x, sigma: clean + 0 * x, lambda x, sigma: x - sigma * noise)
        self._starts = clean + self._sigmas[0] * noise, clean + 10 * self._sigmas[0] * other
        self._pair = cache(self._two_runs)
        try:
            self._pair(0)
        except _FAILURES as failure:
            name = getattr(function, "__name__", type(function).__name__)
            raise ValueError(
                f"the sampler {name} cannot be tried on a small latent, which shows how its state can be replaced "
                f"({failure}). Choose a sampler of ComfyUI: euler, ddpm, dpmpp_2m, ..."
            ) from failure

    def follows(self) -> bool:
        """Whether the function makes the steps of the schedule, not steps of its own."""
        return any(self._pair(0)[0].places(self._sigmas))

    def calls_of(self, steps: tuple[int, ...]) -> dict[int, Handover] | None:
        """The model calls that are made on the function's own state, by number; None if it keeps that to itself.

        steps: ascending, without the finished latent. In a trial those calls' tensors are overwritten with the states
        of another run and back.
        """
        for kind in range(len(self._denoisers)):
            run = self._pair(kind)[0]
            for place in filter(None, run.places(self._sigmas)):
                calls = {place[step]: Handover(step, run.levels[place[step]]) for step in steps}
                if self._becomes_the_other(kind, tuple(calls)):
                    return calls
        return None

    def pieces(self, steps: tuple[int, ...]) -> tuple[list[Piece], MakeNoise | None] | None:
        """The run in pieces that begin anew at each of `steps`, and what makes their noise; None if that cannot be.

        Each piece has to pass through the states that the uncut run has at the same steps.
        """
        total = len(self._sigmas) - 1
        starts = sorted({0, *steps})
        bounds = list(zip(starts, [*starts[1:], total], strict=True))
        for kind in range(len(self._denoisers)):
            run = self._run(kind, self._starts[0], self._sigmas, noise=None)
            for guess, place in enumerate(run.places(self._sigmas)):
                if place is None:
                    continue
                states = [*(run.states[call] for call in place), run.end]
                for make in noise_makers(self._function):
                    source = make and make(states[0], self._sigmas, self._seed)
                    pieces = [self._piece(kind, guess, states, *bound, source) for bound in bounds]
                    if None not in pieces:
                        return pieces, make
        return None

    def _two_runs(self, kind: int) -> tuple[Record, Record]:
        return tuple(self._run(kind, start, self._sigmas, noise=self._any_noise()) for start in self._starts)

    def _any_noise(self) -> NoiseSource | None:
        """A source that is quickly made, the same each time, for runs that are compared with each other."""
        return independent_noise(self._starts[0], self._sigmas, self._seed) if self._makes_noise else None

    def _run(
        self, kind: int, x: Tensor, sigmas: Tensor, before: Before | None = None, *, noise: NoiseSource | None
    ) -> Record:
        """One run with denoiser `kind` from `x`; the host's generators are left as they are.

        noise: given to the function, which makes its own where this is None.
        """
        record = Record()

        def watch(number: int, state: Tensor, sigma: Tensor, arguments: dict) -> None:
            record.states.append(state.clone())
            record.levels.append(float(sigma.flatten()[0]))
            if before is not None:
                before(number, state, sigma, arguments)

        def callback(told: dict) -> None:
            record.told.setdefault(told["i"], (len(record.states), float(told.get("sigma", torch.nan))))

        model = WatchedModel(LinearModel(self._model, self._denoisers[kind]), watch)
        sampling = {"model_options": {"transformer_options": {"sample_sigmas": sigmas}}, "seed": self._seed}
        with torch.random.fork_rng(self._generators):
            try:
                record.end = self._function(
                    model,
                    x.clone(),
                    sigmas.clone(),
                    extra_args=sampling,
                    callback=callback,
                    disable=True,
                    **self._options,
                    **({} if noise is None else {"noise_sampler": noise}),
                )
            except Reached as reached:
                record.end = reached.x.clone()
        return record

    def _becomes_the_other(self, kind: int, calls: tuple[int, ...]) -> bool:
        """Whether a run that is overwritten at `calls` with another one's states, and back, goes on as that one did."""
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

    def _piece(
        self, kind: int, guess: int, states: list[Tensor], start: int, stop: int, source: NoiseSource | None
    ) -> Piece | None:
        """The piece from `start` to `stop`, None if neither the function nor Euler's method passes through `states`."""
        sigmas, way = self._sigmas[start:], states[start : stop + 1]
        try:
            place = self._run(kind, way[0], sigmas, noise=self._any_noise()).places(sigmas)[guess]
            call = place[stop - start] if stop < len(self._sigmas) - 1 else None
            run = self._run(kind, way[0], sigmas, None if call is None else stop_at(call), noise=source)
            passed = [*(run.states[number] for number in place[: stop - start]), run.end]
            if all(_arrives(x, there, way[0], 0.1) for x, there in zip(passed[1:], way[1:], strict=True)):
                return Piece(start, stop, call)
        except _FAILURES:
            pass
        end = euler_step(way[0], self._denoisers[kind](way[0], sigmas[0]), sigmas[0], sigmas[1])
        # Some functions end a little above the level zero: that may be a good part of a last, short step.
        by_euler = stop == start + 1 and _arrives(end, way[1], way[0], 0.1 if sigmas[1] else 0.5)
        return Piece(start, stop, None, alone=False) if by_euler else None


def euler_step(x: Tensor, denoised: Tensor, sigma: Tensor, sigma_next: Tensor) -> Tensor:
    """State at `sigma_next` from state `x` [B,C,...] at `sigma` and the prediction for it, by Euler's method."""
    return denoised + (x - denoised) * (sigma_next / sigma)


def near(level: float, other: float) -> bool:
    """Whether two noise levels are the same, to a thousandth."""
    return abs(level - other) <= 1e-3 * other


def _same(x: Tensor, expected: Tensor, other: Tensor) -> bool:
    """Whether `x` is `expected` and not `other`, with room for the rounding of float32."""
    room = 1e-3 * (expected - other).abs().max() + 1e-4 * expected.abs().max()
    return x.shape == expected.shape and bool((x - expected).abs().max() <= room)


def _arrives(x: Tensor, target: Tensor, start: Tensor, short: float) -> bool:
    """Whether `x` has made the way from `start` to `target`, short of this share of it."""
    return x.shape == target.shape and bool((x - target).abs().max() <= short * (target - start).abs().max())
