"""Inversions: the way of a picture back into the noise that leads to it, one step at a time.

In the sampler's own coordinates: the state x at noise level σ has the prediction x̂0(x,σ) and the slope
d = (x - x̂0)/σ, which is the noise ε of models that predict noise or v, and the velocity of flow models. Euler's step to
another level σ' is x + (σ' - σ)·d, DDIM without noise of its own.

In the order of use: `ddim_step` (Song et al. 2021), `fixed_point_step` (Pan et al. 2023), `two_step` (Wang et al.
2024), and `noise_map` with `ancestral_step` (Huberman-Spiegelglas et al. 2024).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import one_of

# Which noise level the network is told while the state of the lower one is before it.
HIGHER, LOWER = LABELS = ("higher level", "lower level")

# How one noise level leads to the next: from one state, or from two.
EULER, TWO_STEPS = RULES = ("euler", "two steps (O-BELM)")

# The prediction x̂0 [B,C,h,w] for a state at a noise level.
Predict = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Network:
    """The denoiser of an inversion.

    predict: its prediction. input_scale: by what the host multiplies a state before the network gets it, at a noise
    level. least: the lowest noise level that the network knows.
    """

    predict: Predict
    input_scale: Callable[[Tensor], Tensor]
    least: Tensor

    def slope(self, x: Tensor, sigma: Tensor) -> Tensor:
        """d(x,σ) = (x - x̂0)/σ of a state [B,C,h,w]."""
        return (x - self.predict(x, sigma)) / sigma


def euler_step(x: Tensor, sigma: Tensor, target: Tensor, network: Network) -> Tensor:
    """x + (σ' - σ)·d(x,σ): the state at level `target` from `x` [B,C,h,w] at level `sigma`."""
    return x + network.slope(x, sigma) * (target - sigma)


def ddim_step(x: Tensor, low: Tensor, high: Tensor, network: Network, label: str = HIGHER) -> Tensor:
    """x_p + (σ_t - σ_p)·d: the state at level `high` from `x` [B,C,h,w] at level `low`, by DDIM inversion.

    d is of the state at the lower level. label: the noise level that the network is told with it: HIGHER as in
    diffusers and Prompt-to-Prompt, where the network's input stays that of the lower level; LOWER, the state's own, or
    the least one that the network knows. Raises ValueError for another label.
    """
    one_of("label", label, LABELS)
    told = high if label == HIGHER else torch.maximum(low, network.least)
    shown = x if torch.equal(told, low) else x * (network.input_scale(low) / network.input_scale(told))
    return x + network.slope(shown, told) * (high - low)


def fixed_point_step(
    x: Tensor, low: Tensor, high: Tensor, network: Network, iterations: int, label: str = HIGHER
) -> tuple[Tensor, Tensor]:
    """Solve y = x_p + (σ_t - σ_p)·d(y,σ_t), the state from which Euler's step comes back to `x`, by iteration.

    It begins with `ddim_step`, which is the result of 0 iterations bit for bit. Returns y [B,C,h,w] and by how much the
    last iteration changed each picture, as a share of its norm [B]; zeros without any.
    """
    y, change = ddim_step(x, low, high, network, label), x.new_zeros(len(x))
    for _ in range(iterations):
        before, y = y, x + network.slope(y, high) * (high - low)
        change = norms(y - before) / norms(y)
    return y, change


def two_step(before: Tensor, x: Tensor, slope: Tensor, levels: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """O-BELM's step: r²·x_b + (1 - r²)·x + h(1 + r)·d, the state at the last of `levels`.

    levels: of the state `before` x_b [B,C,h,w], of `x` with its `slope` d, and of the result, in either direction; h is
    the step to the result, r how many times longer it is than the one before. Of second order, and exact both ways: the
    step back from the result and `x`, with the same d, gives `before`.
    """
    first, sigma, target = levels
    step, ratio = target - sigma, (target - sigma) / (sigma - first)
    return ratio**2 * before + (1 - ratio**2) * x + step * (1 + ratio) * slope


def ancestral_step(x: Tensor, denoised: Tensor, sigma: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """DDPM's step as ancestral sampling with η = 1: its mean x̂0 + (σ'²/σ²)(x - x̂0), and σ'·√(1 - σ'²/σ²) of its noise.

    x, denoised: [B,C,h,w] at level `sigma`, above `target`.
    """
    spread = (target**2 * (sigma**2 - target**2) / sigma**2) ** 0.5
    down = (target**2 - spread**2) ** 0.5
    return x + (x - denoised) / sigma * (down - sigma), spread


def noise_map(x: Tensor, denoised: Tensor, following: Tensor, sigma: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The noise [B,C,h,w] with which DDPM's step from `x` at `sigma` ends in `following` at `target`, and that end.

    The end is computed anew with the noise, as the sampler will do, so that its rounding does not add up.
    """
    mean, spread = ancestral_step(x, denoised, sigma, target)
    noise = (following - mean) / spread
    return noise, mean + noise * spread


def norms(x: Tensor) -> Tensor:
    """The Euclidean norm of each picture of [B,...], as [B]."""
    return x.flatten(1).norm(dim=1)
