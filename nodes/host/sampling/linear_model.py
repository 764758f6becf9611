"""A denoiser in place of the network, for trying sampler functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.samplers
from torch import Tensor

Denoiser = Callable[[Tensor, Tensor], Tensor]


class LinearModel:
    """Stands for the host's model `model`, as a sampler function is given it: same attributes, another prediction.

    denoiser: the prediction for a state [B,C,...] and noise levels that broadcast to it.
    """

    def __init__(self, model: Any, denoiser: Denoiser) -> None:
        self._model = model
        self._denoiser = denoiser

    def __call__(
        self, x: Tensor, sigma: Tensor, *args: Any, model_options: dict | None = None, **kwargs: Any
    ) -> Tensor:
        """The host's own guidance of the denoiser: functions which hook into it (CFG++) find what they expect."""
        level = sigma.view(-1, *[1] * (x.ndim - 1))
        options = dict(model_options or {})
        options["sampler_calc_cond_batch_function"] = lambda given: [self._denoiser(given["input"], level)] * 2
        return comfy.samplers.sampling_function(self._model, x, sigma, [], [], 2.0, model_options=options)

    @property
    def inner_model(self) -> LinearModel:
        """What the host's model calls, in the same way."""
        return LinearModel(self._model.inner_model, self._denoiser)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)
