"""O-BELM in the host: an inversion that comes back exactly in one model call for each step, and the SAMPLER for it.

A state is found from the two before it, so that an inversion ends with two states, and the way back begins with both.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ...core.choices import one_of
from ...core.methods.inversion import EULER, RULES, Network, fixed_point_step, two_step
from ...core.methods.trajectory import Trajectory, listed
from .inversion import Inverted, check, invert, kept, no_round_trip, noise_text, round_trip_text, start_of
from .own_run import Guided, with_samples


def invert_by(
    rule: str, guided: Guided, latent: dict, sigmas: Tensor, iterations: int, label: str, try_back: bool, vae: Any
) -> tuple[Inverted, comfy.samplers.KSAMPLER]:
    """`invert` or `invert_two_steps`, by the rule's name, and the sampler that comes back.

    Raises ValueError for another rule, and as they do.
    """
    one_of("rule", rule, RULES)
    how = guided, latent, sigmas, iterations, label, try_back, vae
    return (invert(*how), comfy.samplers.sampler_object("euler")) if rule == EULER else invert_two_steps(*how)


def invert_two_steps(
    guided: Guided, latent: dict, sigmas: Tensor, iterations: int, label: str, try_back: bool, vae: Any = None
) -> tuple[Inverted, comfy.samplers.KSAMPLER]:
    """O-BELM inversion of a LATENT along `sigmas` [N+1], and the sampler that comes back.

    iterations, label: of the first step, which no two states lead to, see `fixed_point_step`. try_back, vae: see
    `invert`. Raises ValueError for fewer than two steps, and as `invert`.
    """
    check(guided, iterations, label)
    steps = len(sigmas) - 1
    if steps < 2:
        raise ValueError(f"{steps} step: the two-step rule goes on from two states, so it needs 2 steps or more")
    states: list[Tensor] = []

    def way(network: Network, picture: Tensor, levels: Tensor) -> Tensor:
        up, first = levels.flip(0), picture.float()
        second, _ = fixed_point_step(first, up[0], up[1], network, iterations, label)
        found = _gone_on(network, [first, second], up)
        states.extend(kept(each) for each in found)
        return _gone_on(network, found[:-3:-1], levels)[-1] if try_back else first

    back = guided.walk(latent, sigmas, iterations + steps + try_back * (steps - 1), way)
    path = Trajectory(
        tuple(sigmas.tolist()), tuple(reversed(states)), False, f"the two-step inversion in {steps} steps"
    )
    lines = [f"O-BELM inversion in {steps} steps, cfg {guided.cfg:g}, noise levels {listed(path.levels)}"]
    lines.append(noise_text(guided, path))
    round_trip = no_round_trip()
    if try_back:
        round_trip = with_samples(latent, back)
        lines.append(round_trip_text(round_trip, latent, vae))
    sampler = comfy.samplers.KSAMPLER(sample_two_steps, {"recorded_start": path})
    return Inverted(path, start_of(guided, latent, path), round_trip, "\n".join(lines)), sampler


@torch.no_grad()
def sample_two_steps(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Any = None,
    disable: bool | None = None,
    recorded_start: Trajectory | None = None,
) -> Tensor:
    """A sampler function of the host's: O-BELM.

    recorded_start: its first two states are where the run begins, whatever noise `x` has; the model is asked at the
    first level as well, so that whatever counts steps sees all of them. Without it the first step is Euler's. Raises
    ValueError for a schedule that is not the recorded one, for a part of it, and for latents of another size.
    """
    first, second = (x, None) if recorded_start is None else _first_states(recorded_start, x, sigmas)
    before, x = None, first
    for i, (sigma, target) in enumerate(pairwise(sigmas)):
        denoised = model(x, sigma * x.new_ones(len(x)), **(extra_args or {}))
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigma, "sigma_hat": sigma, "denoised": denoised})
        slope = (x - denoised) / sigma
        if before is not None:
            before, x = x, two_step(before, x, slope, (sigmas[i - 1], sigma, target))
        else:
            before, x = x, x + slope * (target - sigma) if second is None else second
    return x


def _first_states(start: Trajectory, x: Tensor, sigmas: Tensor) -> tuple[Tensor, Tensor]:
    """See `sample_two_steps`: for a sampler's state [B,C,h,w], also that of a twin run."""
    start.check_levels(sigmas.tolist())
    if len(sigmas) != len(start.levels):
        raise ValueError(
            f"the two-step rule begins with the first two of {len(start.levels)} noise levels, but is asked to sample "
            f"{len(sigmas)}: give the sampler the whole schedule, on a model without what cuts a run into parts "
            "(Masked Latent, Pause Sampling)"
        )
    start.check_size(x, "Invert Picture")
    return tuple(comfy.utils.repeat_to_batch_size(each, len(x)).to(x) for each in start.states[:2])


def _gone_on(network: Network, states: list[Tensor], levels: Tensor) -> list[Tensor]:
    """All states of the noise levels, from the first two of them."""
    found = list(states)
    for (first, sigma), target in zip(pairwise(levels[:-1]), levels[2:], strict=True):
        slope = network.slope(found[-1], sigma)
        found.append(two_step(*found[-2:], slope, (first, sigma, target)))
    return found
