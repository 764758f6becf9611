"""Masked-latent replacement: overwrite part of the sampler's state with the noised reference (method section 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

KEEP, CURRENT, CACHED = "keep", "reference", "cached reference"
POLICIES = (KEEP, CURRENT, CACHED)


@dataclass(frozen=True)
class Policy:
    """What fills one side of the mask.

    kind: `keep` leaves the state x_j; `reference` is q(z_ref, σ_j), the reference at the state's own noise level;
    `cached reference` is the reference noised to a fixed `timestep` (0 to 998, less is cleaner) whatever the step.
    Raises ValueError for another kind or timestep.
    """

    kind: str
    timestep: int = 0

    def __post_init__(self) -> None:
        if self.kind not in POLICIES:
            raise ValueError(f"{self.kind!r} is not one of: {', '.join(POLICIES)}")
        if not 0 <= self.timestep <= 998:
            raise ValueError(f"cached timestep {self.timestep} must lie between 0 (clean) and 998 (almost pure noise)")


def blend(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """m · inside + (1 - m) · outside, exact where m is 0 or 1.

    mask: float in [0,1], broadcastable to the states, 1 inside. inside, outside: states of equal shape. Where m = 1 the
    result is `inside` bit for bit, where m = 0 it is `outside`, so that a mask of ones changes nothing.
    """
    mask = mask.to(inside)
    mixed = mask * inside + (1 - mask) * outside
    return torch.where(mask == 1, inside, torch.where(mask == 0, outside, mixed))


def check_reference(reference: Tensor, policies: tuple[Policy, ...]) -> None:
    """Raise ValueError when one of the policies takes from a reference latent [1 or B,C,h,w] that holds no picture."""
    if any(policy.kind != KEEP for policy in policies) and not reference.flatten(1).any(1).all():
        raise ValueError(
            "the reference latent is empty (zeros, as Empty Latent Image makes them): what it fills would become noisy "
            "grey. Connect the encoded reference picture (VAE Encode) to reference."
        )


def fit_reference(reference: Tensor, state: Tensor) -> Tensor:
    """Reference latent z_ref [1 or B,C,h,w] for a state [B,C,h,w]: a batch of one serves every latent.

    Raises ValueError with both sizes when channels or latent sizes differ or the batch is neither 1 nor the state's.
    """
    if reference.shape[1:] != state.shape[1:]:
        raise ValueError(
            f"the reference latent is {_size(reference)} but the sampled latent is {_size(state)}. Encode the "
            f"reference picture at the size "
            "of the sampled picture, with the VAE of this model."
        )
    if reference.shape[0] not in (1, state.shape[0]):
        raise ValueError(
            f"{reference.shape[0]} reference latents for a batch of {state.shape[0]}: give one reference for all, or "
            f"one for each"
        )
    return reference.expand_as(state)


def _size(latent: Tensor) -> str:
    return f"{' x '.join(str(n) for n in latent.shape[2:])} with {latent.shape[1]} channels"
