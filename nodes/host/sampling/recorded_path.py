"""A run that starts from the path that an inversion recorded, whatever noise and latent the sampler node has."""

from __future__ import annotations

from collections.abc import Callable

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.masked_latent import blend, fit_reference
from ...core.methods.trajectory import Trajectory
from .changes import Change, SamplerInputs, change_steps


def state_on_path(path: Trajectory, sigma: Tensor, like: Tensor) -> Tensor:
    """The path's state at a noise level, for the pictures of the state `like` [B,C,h,w]: its shape, device and type.

    Raises ValueError as `Trajectory.at` and `fit_reference`.
    """
    return fit_reference(path.at(float(sigma.flatten()[0])), like).to(like)


def start_on_path(patcher: ModelPatcher, key: str, path: Trajectory) -> None:
    """Make every sampler that runs `patcher` (changed in place: pass a clone) start from the path's own state.

    A run without noise of its own continues another one and is left alone. key: as of `change_steps`. The samplers
    raise ValueError as `Trajectory.check_levels` and `fit_reference`.
    """

    def begin(inputs: SamplerInputs) -> _Start:
        path.check_levels(inputs.sigmas.tolist())
        return _Start(path, inputs)

    change_steps(patcher, key, begin)


class _Start(Change):
    """Puts the path's state into that of the sampler before its first model call."""

    def __init__(self, path: Trajectory, inputs: SamplerInputs) -> None:
        super().__init__((0,) if torch.count_nonzero(inputs.noise) else ())
        self._path = path
        self._free = inputs.denoise_mask

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """See `Change`."""
        start = state_on_path(self._path, sigma, x)
        return start if self._free is None else blend(self._free, start, x)
