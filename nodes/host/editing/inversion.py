"""DDIM inversion in the host: the path of a picture into noise is recorded, and the way back is tried."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...core.choices import one_of
from ...core.maps.measures import compare
from ...core.methods.inversion import LABELS, Network, euler_step, fixed_point_step, norms
from ...core.methods.trajectory import Trajectory, listed
from .own_run import Guided, with_samples

_NO_LATENT = (
    "The start of this inversion is pure noise of a flow model, which a latent cannot hold. Connect the trajectory "
    "instead, to Masked Latent."
)


@dataclass(frozen=True)
class Inverted:
    """What an inversion found.

    path: the states at the noise levels. start: LATENT of the noisiest one, for a sampler without noise of its own.
    round_trip: LATENT that sampling from there gives. What there is not blocks the nodes after it with a message. text:
    what to tell the user.
    """

    path: Trajectory
    start: dict | ExecutionBlocker
    round_trip: dict | ExecutionBlocker
    text: str


def invert(
    guided: Guided, latent: dict, sigmas: Tensor, iterations: int, label: str, try_back: bool, vae: Any = None
) -> Inverted:
    """DDIM inversion of a LATENT along `sigmas` [N+1], with fixed-point iterations.

    iterations, label: see `fixed_point_step`. try_back: sample the path back by Euler's method, with the same prompt
    and guidance. vae: decodes both latents for the report. Raises ValueError for another label, a negative number of
    iterations, a model without noise, and as `Guided.walk`.
    """
    check(guided, iterations, label)
    states: list[Tensor] = []
    changes: list[Tensor] = []

    def way(network: Network, picture: Tensor, levels: Tensor) -> Tensor:
        x = picture.float()
        states.append(kept(x))
        for low, high in pairwise(levels.flip(0)):
            x, change = fixed_point_step(x, low, high, network, iterations, label)
            states.append(kept(x))
            changes.append(change.cpu())
        for high, low in pairwise(levels) if try_back else ():
            x = euler_step(x, high, low, network)
        return x

    steps = len(sigmas) - 1
    back = guided.walk(latent, sigmas, steps * (iterations + 1 + try_back), way)
    name = f"the inversion in {steps} steps"
    path = Trajectory(tuple(sigmas.tolist()), tuple(reversed(states)), True, name)
    lines = [f"{_named(iterations)} in {steps} steps, cfg {guided.cfg:g}, noise levels {listed(path.levels)}"]
    if iterations:
        worst = torch.stack(changes).amax(1)
        step = int(worst.argmax())
        lines.append(
            f"the last iteration changed the state by at most {float(worst[step]):.2e} of its size (at noise level "
            f"{path.levels[-2 - step]:.4g}); what is left grows on the way back"
        )
    lines.append(noise_text(guided, path))
    round_trip = no_round_trip()
    if try_back:
        round_trip = with_samples(latent, back)
        lines.append(round_trip_text(round_trip, latent, vae))
    return Inverted(path, start_of(guided, latent, path), round_trip, "\n".join(lines))


def check(guided: Guided, iterations: int, label: str) -> None:
    """Raise ValueError for another label, a negative number of iterations, and as `require_noise`."""
    one_of("label", label, LABELS)
    if iterations < 0:
        raise ValueError(f"iterations {iterations} must be 0 (plain DDIM inversion) or more")
    require_noise(guided)


def kept(x: Tensor) -> Tensor:
    """A state as a trajectory keeps it: float32 on the CPU."""
    return x.detach().to("cpu", torch.float32, copy=True)


def no_round_trip() -> ExecutionBlocker:
    """What stands for a round trip that was not tried."""
    return ExecutionBlocker("The round trip was not tried: switch try_back on.")


def _named(iterations: int) -> str:
    return f"DDIM inversion with {iterations} fixed-point iterations" if iterations else "DDIM inversion"


def require_noise(guided: Guided) -> None:
    """Raise ValueError for a model that does not start from noise."""
    noise = guided.sampling.noise_scaling(torch.tensor([0.5]), torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1))
    if not noise.any():
        raise ValueError(
            f"{type(guided.model.model).__name__} makes a picture from another one and not from noise, so there is "
            "nothing to invert: connect a model that samples from noise"
        )


def start_of(guided: Guided, latent: dict, path: Trajectory) -> dict | ExecutionBlocker:
    """The noisiest state as LATENT, which cannot hold pure noise of a flow model: the host divides it by zero."""
    samples = guided.as_latent(path.states[0], path.levels[0])
    return with_samples(latent, samples) if samples.isfinite().all() else ExecutionBlocker(_NO_LATENT)


def noise_text(guided: Guided, path: Trajectory) -> str:
    """What the network is given at the start: of pure noise mean 0, deviation 1 and correlation 0."""
    x = guided.sampling.calculate_input(torch.tensor([path.levels[0]]), path.states[0])
    mean = x.mean()
    x = x - mean
    beside = (x[..., 1:] * x[..., :-1]).mean() / (x**2).mean()
    return (
        f"the start: mean {float(mean):+.3f}, deviation {float(x.std()):.3f}, correlation of neighbours "
        f"{float(beside):+.3f} (of pure noise 0, 1 and 0)"
    )


def round_trip_text(back: dict, latent: dict, vae: Any) -> str:
    """By how much the round trip missed the latent, and its decoded picture."""
    made, original = (each["samples"].float().cpu() for each in (back, latent))
    off = float((norms(made - original) / norms(original)).mean())
    text = f"round trip: the latent is off by {off:.2%} of its size"
    if vae is None:
        return f"{text}; with a VAE connected, also the picture's PSNR is measured"
    pictures = [vae.decode(each["samples"]) for each in (back, latent)]
    pictures = [each.reshape(-1, *each.shape[-3:]).float().cpu().clamp(0, 1) for each in pictures]
    measured = compare(*pictures)
    return f"{text}; the picture, beside what the VAE makes of the latent itself: {measured.mean_psnr:.1f} dB"
