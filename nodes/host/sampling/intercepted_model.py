"""The model that a sampler function gets, with a function of this pack that is called before every model call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

# Called with the number of the model call (from 0), the state it is made on, its noise levels and its other arguments.
BeforeCall = Callable[[int, Tensor, Tensor, dict], None]


class InterceptedModel:
    """Calls `before` in front of each call of `model`; everything else is the model's own."""

    def __init__(self, model: Any, before: BeforeCall) -> None:
        self._model = model
        self._before = before
        self._calls = 0

    def __call__(self, x: Tensor, sigma: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the model's prediction for state `x` [B,C,h,w] at noise levels `sigma` [B]."""
        self._calls += 1
        self._before(self._calls - 1, x, sigma, kwargs)
        return self._model(x, sigma, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)


class SamplerStopped(Exception):
    """Raised out of a sampler function to end it before a model call. x: the state that the call would be made on."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()
        self.x = x


def stop_at(call: int) -> BeforeCall:
    """Return a function that ends the sampler function before model call `call`, see `SamplerStopped`."""

    def before(number: int, x: Tensor, sigma: Tensor, arguments: dict) -> None:
        if number == call:
            raise SamplerStopped(x)

    return before
