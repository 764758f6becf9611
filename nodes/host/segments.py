"""A sampler function cut into segments, so that the state between them can be changed (method section 7)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from torch import Tensor
from tqdm.auto import tqdm

from .model_call import aside
from .noise_source import shared_noise_source


class Change(Protocol):
    """Gives the state that enters a step instead of the one the sampler left there."""

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """Return the new state [B,C,h,w] at noise level `sigma`; `predict` calls the model once on the old one, `x`."""
        ...


class Segments:
    """A sampler function that runs another one in segments and changes the state between them.

    changes: (steps, change) pairs; where several fall on one step they act one after the other.
    """

    def __init__(self, function: Callable, changes: tuple[tuple[tuple[int, ...], Change], ...]) -> None:
        self._function = function
        self._changes = changes
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    @classmethod
    def around(cls, function: Callable, steps: tuple[int, ...], change: Change) -> Segments:
        """Apply `change` at `steps` of `function`; of one that is cut already, beside its other changes.

        Cutting it twice would count the second one's steps within each segment of the first.
        """
        if isinstance(function, Segments):
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
        """Sample from `x` at sigmas[0] to sigmas[-1]; one noise source and one progress bar for all segments."""
        total = len(sigmas) - 1
        extra_args = extra_args or {}
        if options.get("noise_sampler") is None and (seed := extra_args.get("seed")) is not None:
            source = shared_noise_source(self._function, x, sigmas, seed)
            options |= {"noise_sampler": source} if source is not None else {}
        ones = x.new_ones(x.shape[0])
        with tqdm(total=total, disable=disable) as bar:
            for start, end in self._segments(total):
                for steps, change in self._changes:
                    if start in steps:
                        x = change(
                            start, x, sigmas[start], partial(model, x, sigmas[start] * ones, **aside(extra_args))
                        )
                if start < end:
                    progress = _from_step(start, callback, bar)
                    part = sigmas[start : end + 1].clone()
                    x = self._function(
                        model, x, part, extra_args=dict(extra_args), callback=progress, disable=True, **options
                    )
        return x

    def _segments(self, total: int) -> list[tuple[int, int]]:
        starts = sorted({0}.union(*(steps for steps, _ in self._changes)))
        return list(zip(starts, [*starts[1:], total], strict=True))


def _from_step(start: int, callback: Callable | None, bar: tqdm) -> Callable[[dict], None]:
    """A sampler callback that counts steps from the beginning of the whole run."""

    def report(state: dict) -> None:
        bar.update(start + state["i"] + 1 - bar.n)
        if callback is not None:
            callback({**state, "i": start + state["i"]})

    return report
