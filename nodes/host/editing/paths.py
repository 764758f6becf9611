"""Ways on which a picture that is made beside the target goes through the noise levels of a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from ...core.choices import one_of
from ...core.methods.masked_latent import fit_reference
from ...core.methods.trajectory import Trajectory
from ..sampling.recorded_path import state_on_path

GENERATED, NOISED, RECORDED = PATHS = ("generated", "noised reference", "recorded")

# A picture's state for the sampler's own rows of it [B,C,h,w] and a noise level.
State = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Path:
    """What the picture is at each noise level.

    kind: GENERATED: it is sampled like the target, from the same noise; NOISED: it is `reference`, a latent
    [1 or B,C,h,w] as the host stores it, with the run's noise; RECORDED: it is the state of `trajectory`. name: of the
    input that chooses the kind, for messages. Raises ValueError for another kind, for a NOISED one without a reference
    and a RECORDED one without a trajectory.
    """

    kind: str = GENERATED
    reference: Tensor | None = None
    trajectory: Trajectory | None = None
    name: str = "source_path"

    def __post_init__(self) -> None:
        one_of(self.name, self.kind, PATHS)
        if self.kind == NOISED and self.reference is None:
            raise ValueError(
                f"{self.name} is '{NOISED}', but no reference is connected: connect the encoded picture (VAE Encode) "
                f"to reference, or choose {GENERATED}"
            )
        if self.kind == RECORDED and self.trajectory is None:
            raise ValueError(
                f"{self.name} is '{RECORDED}', but no trajectory is connected: connect that of Invert Picture, or "
                f"choose {GENERATED}"
            )

    def begin(self, guider: Any, noise: Tensor, seed: int | None, sigmas: Tensor) -> State | None:
        """For one run: what gives the picture's state; None if it is sampled.

        guider: the host's. noise: the user's, [B,C,h,w]. sigmas: the run's noise levels. Raises ValueError as
        `fit_reference` and `Trajectory.check_levels`.
        """
        if self.kind == RECORDED:
            self.trajectory.check_levels(sigmas.tolist())
            fit_reference(self.trajectory.picture, noise)
            return lambda rows, sigma: state_on_path(self.trajectory, sigma, rows)
        if self.kind == GENERATED:
            return None
        reference = guider.inner_model.process_latent_in(self.reference.to(noise))
        if torch.count_nonzero(noise) == 0:  # the run continues another one
            fresh = comfy.sample.prepare_noise(torch.empty_like(noise, device="cpu"), seed or 0)
            noise = fresh.to(noise)
        filled, sampling = (noise, fit_reference(reference, noise)), guider.inner_model.model_sampling
        return lambda rows, sigma: sampling.noise_scaling(sigma.flatten()[0], *filled)
