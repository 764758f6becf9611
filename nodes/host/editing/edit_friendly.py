"""Edit-friendly DDPM inversion in the host: a SAMPLER whose noise leads back to the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import comfy.samplers
import comfy.utils
import torch
from comfy.k_diffusion.sampling import sample_euler_ancestral
from torch import Tensor

from ...core.methods.inversion import Network, noise_map
from ...core.methods.trajectory import Trajectory, listed
from .inversion import Inverted, kept, require_noise, round_trip_text, start_of
from .own_run import Guided, with_samples


@dataclass(frozen=True)
class NoiseMaps:
    """The noise of each step of an edit-friendly inversion, in place of a sampler's own.

    path: the states that it leads through. maps: one for each step but the last, which has no noise; float32 [B,C,h,w]
    on the CPU. like: the shape, device and type that a map is given; None for its own.
    """

    path: Trajectory
    maps: tuple[Tensor, ...]
    like: Tensor | None = None

    def __call__(self, sigma: Tensor, sigma_next: Tensor) -> Tensor:
        """The noise of the step from one noise level to another. Raises ValueError for a step that was not inverted."""
        step = [float(sigma), float(sigma_next)]
        self.path.check_levels(step)
        levels = torch.tensor(self.path.levels)
        return self._fitted(self.maps[int((levels - step[0]).abs().argmin())])

    def of_state(self, x: Tensor) -> NoiseMaps:
        """The maps for a sampler's state [B,C,h,w], also that of a twin run. Raises ValueError for other sizes."""
        self.path.check_size(x, "Edit-Friendly Inversion")
        return NoiseMaps(self.path, self.maps, x)

    def start(self) -> Tensor:
        """The state at the first noise level."""
        return self._fitted(self.path.states[0])

    def _fitted(self, each: Tensor) -> Tensor:
        return each if self.like is None else comfy.utils.repeat_to_batch_size(each, len(self.like)).to(self.like)


@torch.no_grad()
def sample_edit_friendly(
    model: Any,
    x: Tensor,
    sigmas: Tensor,
    extra_args: dict | None = None,
    callback: Any = None,
    disable: bool | None = None,
    noise_sampler: Any = None,
) -> Tensor:
    """A sampler function of the host's: ancestral Euler (η = 1) with the noise of `NoiseMaps`.

    At the first level of the maps it begins with their own state, whatever noise `x` has. Raises ValueError for a
    schedule that is not theirs, and for latents of another size.
    """
    if isinstance(noise_sampler, NoiseMaps):
        noise_sampler.path.check_levels(sigmas.tolist())
        noise_sampler = noise_sampler.of_state(x)
        if len(sigmas) == len(noise_sampler.path.levels):
            x = noise_sampler.start()
    return sample_euler_ancestral(model, x, sigmas, extra_args, callback, disable, noise_sampler=noise_sampler)


def invert_edit_friendly(
    guided: Guided, latent: dict, sigmas: Tensor, skip: float, seed: int, vae: Any = None
) -> tuple[Inverted, comfy.samplers.KSAMPLER]:
    """Edit-friendly DDPM inversion of a LATENT along `sigmas` [N+1], and the sampler that repeats it.

    skip: the share of the steps that the edit leaves out at the noisy end; the path begins behind them. seed: of the
    noise of each level. Raises ValueError for a skip that leaves no step, for flow models, whose sampling has no such
    step, and as `Guided.walk`.
    """
    require_noise(guided)
    if not torch.equal(_picture_share(guided, sigmas[:1]), torch.ones(1, 1, 1, 1)):
        name = type(guided.model.model).__name__
        raise ValueError(
            "edit-friendly inversion is defined for models that add noise to a picture (SD 1.x, SD 2.x and SDXL, which "
            f"predict noise or v), but {name} fades the picture out (a flow model): use Invert Picture"
        )
    steps = len(sigmas) - 1
    first = int(skip * steps)
    if not 0 <= skip < 1 or first >= steps:
        raise ValueError(f"skip {skip} leaves none of {steps} steps: give 0 (all steps) or more, below 1")
    sigmas, states, maps = sigmas[first:], [], []
    generator = torch.Generator().manual_seed(seed)

    def way(network: Network, picture: Tensor, levels: Tensor) -> Tensor:
        z = picture.float()
        noises = [torch.randn(z.shape, generator=generator).to(z) for _ in levels[:-1]]
        x = z + levels[0] * noises[0]
        states.append(kept(x))
        for high, low, drawn in zip(levels[:-2], levels[1:-1], noises[1:], strict=True):
            noise, x = noise_map(x, network.predict(x, high), z + low * drawn, high, low)
            maps.append(kept(noise))
            states.append(kept(x))
        states.append(kept(z))
        return network.predict(x, levels[-2])

    back = guided.walk(latent, sigmas, len(sigmas) - 1, way)
    name = f"the edit-friendly inversion in {len(sigmas) - 1} of {steps} steps"
    path = Trajectory(tuple(sigmas.tolist()), tuple(states), False, name)
    round_trip = with_samples(latent, back)
    lines = [
        f"Edit-friendly DDPM inversion in {steps} steps, of which {len(sigmas) - 1} are sampled, cfg {guided.cfg:g}, "
        f"noise levels {listed(path.levels)}",
        round_trip_text(round_trip, latent, vae),
    ]
    sampler = comfy.samplers.KSAMPLER(sample_edit_friendly, {"noise_sampler": NoiseMaps(path, tuple(maps))})
    return Inverted(path, start_of(guided, latent, path), round_trip, "\n".join(lines)), sampler


def _picture_share(guided: Guided, sigma: Tensor) -> Tensor:
    """How much of the picture the host keeps in a state at this noise level."""
    return guided.sampling.noise_scaling(sigma, torch.zeros(1, 1, 1, 1), torch.ones(1, 1, 1, 1))
