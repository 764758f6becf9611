"""A sampler function whose state is changed as it enters chosen steps (method section 7)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from torch import Tensor
from tqdm.auto import tqdm

from ..attention.model_call import aside
from .noise_source import MakeNoise
from .trial import Handover, Piece, Trial, euler_step, near
from .watched_model import Before, Reached, WatchedModel, stop_at

_OTHERS = "Choose a sampler that follows the scheduler: euler, ddpm, dpmpp_2m, ..."


class Change(Protocol):
    """Gives the state that enters a step instead of the one the sampler left there."""

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """Return the new state [B,C,h,w] at noise level `sigma`; `predict` calls the model once on the old one, `x`."""
        ...

    def note(self, text: str) -> None:
        """Take in what the user has to know of how the sampler was changed."""
        ...


@dataclass(frozen=True)
class _Run:
    """What a sampler function is called with, apart from the state."""

    function: Callable
    model: Any
    sigmas: Tensor
    extra_args: dict
    callback: Callable | None
    disable: bool | None
    options: dict

    def __call__(self, x: Tensor, before: Before | None = None, start: int = 0, **other: Any) -> Tensor:
        """Sample from state `x`, which enters step `start`; `before` looks at every model call before it is made."""
        return self.function(
            self.model if before is None else WatchedModel(self.model, before),
            x,
            self.sigmas[start:].clone(),  # some functions write into them
            **{
                "extra_args": dict(self.extra_args),
                "callback": self.callback,
                "disable": self.disable,
                **self.options,
                **other,
            },
        )

    def predict(self, x: Tensor, sigma: Tensor, arguments: dict) -> Tensor:
        """The model's prediction for state `x` at noise level `sigma`."""
        return self.model(x, sigma * x.new_ones(x.shape[0]), **arguments)


class ChangedSteps:
    """A sampler function that runs another one and changes the state that enters some of its steps.

    Where the function hands its own state to the model, the new state is written into that tensor: the function keeps
    its memory of earlier steps and its noise. Where it keeps its state to itself (predictor-correctors), it is stopped
    at the step and begun anew from the new state.
    changes: (steps, change) pairs; where several fall on one step they act one after the other.
    """

    def __init__(self, function: Callable, changes: tuple[tuple[tuple[int, ...], Change], ...]) -> None:
        self._function = function
        self._changes = changes
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    @classmethod
    def around(cls, function: Callable, steps: tuple[int, ...], change: Change) -> ChangedSteps:
        """Apply `change` at `steps` of `function`; of one that is changed already, beside its other changes."""
        if isinstance(function, ChangedSteps):
            return cls(function._function, (*function._changes, (steps, change)))
        return cls(function, ((steps, change),))

    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict | None = None,
        callback: Callable | None = None,
        disable: bool | None = None,
        **options: Any,
    ) -> Tensor:
        """Sample from `x` at sigmas[0] to sigmas[-1].

        Raises ValueError for a function that does not follow `sigmas`, or that lets its state be changed in neither
        way.
        """
        steps = tuple(sorted({step for steps, _ in self._changes for step in steps}))
        if not steps:
            return self._function(
                model, x, sigmas, extra_args=extra_args, callback=callback, disable=disable, **options
            )
        run = _Run(self._function, model, sigmas, extra_args or {}, callback, disable, options)
        trial = Trial(self._function, model, x, sigmas, run.extra_args.get("seed"), options)
        if not trial.follows():
            raise self._own_steps()
        total = len(sigmas) - 1
        before_the_end = tuple(step for step in steps if step < total)
        calls = trial.calls_of(before_the_end)
        if calls is not None:
            x = self._in_place(run, x, calls)
        else:
            pieces = trial.pieces(before_the_end)
            if pieces is None:
                raise ValueError(
                    f"the sampler {self._sampler} keeps its state to itself and cannot be begun anew from another one, "
                    f"so the latent cannot be replaced at step {_listed(before_the_end)}. {_OTHERS}"
                )
            x = self._in_pieces(run, x, *pieces)
        return self._changed(run, total, x, sigmas[total])

    def _changed(self, run: _Run, step: int, x: Tensor, sigma: Tensor, arguments: dict | None = None) -> Tensor:
        """The state that enters `step` after all changes that fall on it. arguments: of the model call there."""
        for steps, change in self._changes:
            if step in steps:
                x = change(step, x, sigma, partial(run.predict, x, sigma, aside(arguments or run.extra_args)))
        return x

    def _in_place(self, run: _Run, x: Tensor, calls: dict[int, Handover]) -> Tensor:
        """Sample uncut; at the model calls in `calls` the state is overwritten."""
        left = dict(calls)

        def overwrite(number: int, state: Tensor, sigma: Tensor, arguments: dict) -> None:
            if number not in left:
                return
            there = left.pop(number)
            if not near(float(sigma[0]), there.level):
                raise self._own_steps()
            state.copy_(self._changed(run, there.step, state, sigma[0], arguments))

        # a clone, since the first state may be a tensor that the host still needs
        x = run(x.clone(), before=overwrite)
        if left:
            raise self._own_steps()
        return x

    def _in_pieces(self, run: _Run, x: Tensor, pieces: list[Piece], make_noise: MakeNoise | None) -> Tensor:
        """Sample with the function begun anew at the beginning of each piece; one noise source and one progress bar."""
        self._note(pieces)
        total = len(run.sigmas) - 1
        noise = {}
        if make_noise is not None and run.options.get("noise_sampler") is None:
            noise = {"noise_sampler": make_noise(x, run.sigmas, run.extra_args.get("seed"))}
        with tqdm(total=total, disable=run.disable) as bar:
            for piece in pieces:
                sigma = run.sigmas[piece.start]
                x = self._changed(run, piece.start, x, sigma)
                callback = _from_step(piece.start, run.callback, bar)
                if not piece.alone:
                    denoised = run.predict(x, sigma, run.extra_args)
                    callback({"x": x, "i": 0, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
                    x = euler_step(x, denoised, sigma, run.sigmas[piece.stop])
                    continue
                before = None if piece.call is None else stop_at(piece.call)
                try:
                    x = run(x, before=before, start=piece.start, callback=callback, disable=True, **noise)
                except Reached as reached:
                    x = reached.x
        return x

    def _note(self, pieces: list[Piece]) -> None:
        """Tell the user what sampling in pieces means."""
        notes = []
        if anew := [piece.start for piece in pieces if piece.start]:
            notes.append(
                f"{self._sampler} keeps its state to itself, so it was begun anew at step {_listed(anew)} and has "
                "forgotten the steps before: even a mask that keeps everything changes its result, by up to 15 %"
            )
        if euler := [piece.start for piece in pieces if not piece.alone]:
            notes.append(f"{self._sampler} cannot make step {_listed(euler)} alone: Euler's method made it")
        for _, change in self._changes:
            for note in notes:
                change.note(note)

    @property
    def _sampler(self) -> str:
        return self.__name__.removesuffix("_function").removeprefix("sample_")

    def _own_steps(self) -> ValueError:
        steps = sorted({step for steps, _ in self._changes for step in steps})
        return ValueError(
            f"the sampler {self._sampler} chooses its own steps, so the latent cannot be replaced at step "
            f"{_listed(steps)}. {_OTHERS}"
        )


def _listed(steps: Iterable[int]) -> str:
    return ", ".join(map(str, steps))


def _from_step(start: int, callback: Callable | None, bar: tqdm) -> Callable[[dict], None]:
    """A sampler callback that counts steps from the beginning of the whole run."""

    def report(state: dict) -> None:
        bar.update(start + state["i"] + 1 - bar.n)
        if callback is not None:
            callback({**state, "i": start + state["i"]})

    return report
