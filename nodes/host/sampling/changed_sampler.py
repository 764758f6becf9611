"""A sampler function that runs another one and changes its state as it enters chosen steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from torch import Tensor
from tqdm.auto import tqdm

from .changed_run import ChangedRun
from .intercepted_model import BeforeCall, SamplerStopped, stop_at
from .noise_source import MakeNoise
from .trial import InPlace, Segment, Trial, euler_step
from .trial_run import near

if TYPE_CHECKING:
    from .changes import Change

FOLLOW_THE_SCHEDULER = "Choose a sampler that follows the scheduler: euler, ddpm, dpmpp_2m, ..."


class ChangedSampler:
    """Runs a sampler function and applies changes to the state that enters some of its steps.

    Where the function hands its own state to the model, the new state is written into that tensor: the function keeps
    its memory of earlier steps and its noise. Where it shows the model other tensors only (predictor-correctors), it is
    stopped at the step and restarted from the new state. A trial on a small latent finds out which.
    """

    def __init__(self, function: Callable, changes: tuple[Change, ...]) -> None:
        self._function = function
        self._changes = changes
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    @classmethod
    def around(cls, function: Callable, change: Change) -> ChangedSampler:
        """Apply `change` to `function`; where that one is changed already, after its other changes."""
        if isinstance(function, ChangedSampler):
            return cls(function._function, (*function._changes, change))
        return cls(function, (change,))

    @staticmethod
    def unchanged(function: Callable) -> Callable:
        """The function without the changes that were applied to it."""
        return function._function if isinstance(function, ChangedSampler) else function

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
        """Sample from `x` [B,C,h,w] at sigmas[0] to sigmas[-1].

        Raises ValueError for a function that does not follow `sigmas`, or whose state cannot be changed.
        """
        run = ChangedRun(self._function, model, sigmas, extra_args or {}, callback, disable, options, self._changes)
        trial = Trial(self._function, model, x, sigmas, run.extra_args.get("seed"), options)
        before_the_end = tuple(step for step in self._steps if step < run.total)
        follows = trial.follows_schedule()
        in_place = trial.in_place(before_the_end) if follows else None
        if in_place is None:
            needed = tuple(change for change in self._changes if not change.acts_otherwise())
            if len(needed) < len(self._changes):
                function = ChangedSampler(self._function, needed) if needed else self._function
                how = {"extra_args": extra_args, "callback": callback, "disable": disable}
                return function(model, x, sigmas, **how, **options)
        if not follows:
            raise self._own_steps()
        if in_place is not None:
            x = self._sample_in_place(run, x, in_place)
        else:
            found = trial.segments(before_the_end)
            if found is None:
                raise ValueError(
                    f"the sampler {self._sampler} gives no access to its state and cannot be restarted from another "
                    f"one, so the latent cannot be changed at step {listed(before_the_end)}. {FOLLOW_THE_SCHEDULER}"
                )
            x = self._sample_in_segments(run, x, *found)
        return run.changed(run.total, x, sigmas[run.total])

    def _sample_in_place(self, run: ChangedRun, x: Tensor, in_place: InPlace) -> Tensor:
        """Sample without interruption; at some of its model calls the state is overwritten."""
        left = dict(in_place.calls)

        def before(number: int, state: Tensor, sigma: Tensor, arguments: dict) -> None:
            if number in left:
                call = left.pop(number)
                if not near(float(sigma[0]), call.level):
                    raise self._own_steps()
                state.copy_(run.changed(call.step, state, sigma[0], arguments))
            if number + 1 in left:
                run.prepare(left[number + 1].step)
            else:
                at_the_end = not left and (number >= in_place.total - 1 or run.in_last_step(sigma))
                run.prepare(run.total if at_the_end else None)

        # a clone, since the first state may be a tensor that the host still needs
        x = run.sample(x.clone(), before)
        if left:
            raise self._own_steps()
        return x

    def _sample_in_segments(
        self, run: ChangedRun, x: Tensor, segments: list[Segment], make_noise: MakeNoise | None
    ) -> Tensor:
        """Sample with the function restarted for each segment; one noise source and one progress bar serve them all."""
        self._note(segments)
        noise = {}
        if make_noise is not None and run.options.get("noise_sampler") is None:
            noise = {"noise_sampler": make_noise(x, run.sigmas, run.extra_args.get("seed"))}
        with tqdm(total=run.total, disable=run.disable) as bar:
            for segment in segments:
                sigma = run.sigmas[segment.start]
                x = run.changed(segment.start, x, sigma)
                callback = _from_step(segment.start, run.callback, bar)
                if segment.by_euler:
                    run.prepare(segment.stop)
                    denoised = run.predict(x, sigma, run.extra_args)
                    callback({"x": x, "i": 0, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
                    x = euler_step(x, denoised, sigma, run.sigmas[segment.stop])
                    continue
                try:
                    x = run.sample(
                        x, _in_segment(run, segment), segment.start, callback=callback, disable=True, **noise
                    )
                except SamplerStopped as stopped:
                    x = stopped.x
        return x

    def _note(self, segments: list[Segment]) -> None:
        """Tell the user what sampling in segments means."""
        notes = []
        if restarts := [segment.start for segment in segments if segment.start]:
            notes.append(
                f"{self._sampler} gives no access to its state, so it was restarted at step {listed(restarts)} and has "
                "forgotten the steps before: even a mask that keeps everything changes its result, by up to 15 %"
            )
        if euler := [segment.start for segment in segments if segment.by_euler]:
            notes.append(f"{self._sampler} cannot make step {listed(euler)} alone: Euler's method made it")
        for change in self._changes:
            for note in notes:
                change.note(note)

    @property
    def _sampler(self) -> str:
        return self.__name__.removesuffix("_function").removeprefix("sample_")

    @property
    def _steps(self) -> list[int]:
        """The steps of all changes, ascending."""
        return sorted({step for change in self._changes for step in change.steps})

    def _own_steps(self) -> ValueError:
        return ValueError(
            f"the sampler {self._sampler} chooses its own steps, so the latent cannot be changed at step "
            f"{listed(self._steps)}. {FOLLOW_THE_SCHEDULER}"
        )


def _in_segment(run: ChangedRun, segment: Segment) -> BeforeCall:
    """Prepare the changes for each model call of a segment, and stop the sampler function where the segment ends."""
    stop, is_last = stop_at(segment.calls), segment.stop == run.total

    def before(number: int, state: Tensor, sigma: Tensor, arguments: dict) -> None:
        if not is_last:
            stop(number, state, sigma, arguments)
        last = number >= segment.calls - 1 or (is_last and run.in_last_step(sigma))
        run.prepare(segment.stop if last else None)

    return before


def listed(steps: Iterable[int]) -> str:
    """Step numbers as they are written in a sentence."""
    return ", ".join(map(str, steps))


def _from_step(start: int, callback: Callable | None, bar: tqdm) -> Callable[[dict], None]:
    """A sampler callback that counts steps from the beginning of the whole run."""

    def report(state: dict) -> None:
        bar.update(start + state["i"] + 1 - bar.n)
        if callback is not None:
            callback({**state, "i": start + state["i"]})

    return report
