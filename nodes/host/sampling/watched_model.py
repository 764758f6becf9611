"""A model, as a sampler function is given it, with someone who looks at every call before it is made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

# Called with the number of the call (from 0), the state it is made on, its noise level and its keyword arguments.
Before = Callable[[int, Tensor, Tensor, dict], None]


class WatchedModel:
    """Calls `before` in front of each model call; everything else is the model's own."""

    def __init__(self, model: Any, before: Before) -> None:
        self._model = model
        self._before = before
        self._calls = 0

    def __call__(self, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """The model's prediction for state `x` [B,C,h,w] at noise levels `sigma` [B]."""
        self._calls += 1
        self._before(self._calls - 1, x, sigma, kwargs)
        return self._model(x, sigma, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class Reached(Exception):
    """Raised by `stop_at` out of a sampler function: it has come to the step at which it was to stop.

    x: the state that it hands to the model there.
    """

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


def stop_at(call: int) -> Before:
    """Ends a sampler function before model call `call`, see `Reached`."""

    def before(number: int, x: Tensor, sigma: Tensor, arguments: dict) -> None:
        if number == call:
            raise Reached(x)

    return before
