"""The noise source that a stock sampler would make for itself, made once for all segments of a run."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from comfy.k_diffusion import sampling as k_diffusion
from torch import Tensor

NoiseSource = Callable[[Tensor, Tensor], Tensor]


def shared_noise_source(sampler_function: Callable, x: Tensor, sigmas: Tensor, seed: int | None) -> NoiseSource | None:
    """Return the noise source of `sampler_function` for a whole run, or None when the sampler takes none.

    A sampler that is called once per segment would restart its own source each time and repeat its noise. SDE samplers
    use a Brownian tree over the range of `sigmas`, the others independent draws; both from `seed`, as the host's
    samplers make them.
    x: the state [B,C,h,w] the noise is for. sigmas: the schedule of the whole run.
    """
    function = inspect.unwrap(sampler_function)
    if "noise_sampler" not in inspect.signature(function).parameters:
        return None
    if _makes_brownian_tree(function):
        positive = sigmas[sigmas > 0]
        on_cpu = not function.__name__.endswith("_gpu")
        return k_diffusion.BrownianTreeNoiseSampler(x, positive.min(), sigmas.max(), seed=seed, cpu=on_cpu)
    return k_diffusion.default_noise_sampler(x, seed=seed)


def _makes_brownian_tree(function: Callable) -> bool:
    """Whether `function`, or a function of its own module that it hands over to, makes a Brownian tree."""
    seen: set[Any] = set()
    waiting = [function]
    while waiting:
        code = inspect.unwrap(waiting.pop())
        if code in seen or not inspect.isfunction(code):
            continue
        seen.add(code)
        names = code.__code__.co_names
        if "BrownianTreeNoiseSampler" in names:
            return True
        waiting += [code.__globals__[n] for n in names if n.startswith("sample_") and n in code.__globals__]
    return False
