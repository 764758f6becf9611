"""Noise sources as the host's samplers make them for themselves, for a run that is made in several segments."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

NoiseSource = Callable[[Tensor, Tensor], Tensor]
# Makes a noise source from the states [B,C,...], the noise levels of a whole run, and its seed.
MakeNoise = Callable[[Tensor, Tensor, Any], NoiseSource]


def independent_noise(x: Tensor, sigmas: Tensor, seed: Any) -> NoiseSource:
    """A source of independent draws for states [B,C,...], whatever the noise levels."""
    return k_diffusion.default_noise_sampler(x, seed=seed)


def _brownian(x: Tensor, sigmas: Tensor, seed: Any) -> NoiseSource:
    """A source of the increments of one Brownian path over the range of `sigmas`."""
    return k_diffusion.BrownianTreeNoiseSampler(x, sigmas[sigmas > 0].min(), sigmas.max(), seed=seed, cpu=True)


def makes_noise(sampler_function: Callable) -> bool:
    """Whether a sampler function takes a noise source, and makes one for itself where it is given none."""
    return "noise_sampler" in inspect.signature(inspect.unwrap(sampler_function)).parameters


def noise_makers(sampler_function: Callable) -> tuple[MakeNoise | None, ...]:
    """What may make the noise of `sampler_function`, to be tried in this order; None leaves it to the function.

    A function that is called once per segment would make a new source of its own each time and repeat its noise.
    """
    return (independent_noise, _brownian, None) if makes_noise(sampler_function) else (None,)
