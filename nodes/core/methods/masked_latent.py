"""Masked-latent sampling: at chosen steps, overwrite part of the sampler's state with the noised reference.

In the order of use: at which steps (`parse_steps`), what fills each side of the mask (`Policy`), and the replacement
itself (`fit_reference`, `blend`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import one_of

# Near the published 5, 18 and 28 of 35 steps, for a run of any length.
PUBLISHED_SHARES = "15%, 50%, 80%"

KEEP, CURRENT, CACHED, RECORDED = "keep", "reference", "cached reference", "recorded path"
POLICIES = (KEEP, CURRENT, CACHED, RECORDED)

_ITEM = re.compile(r"(\d+)(?:\s*-\s*(\d+))?|(\d+(?:\.\d+)?)\s*%")
# Lengths of runs that step numbers are usually written for; the first is the published one.
_USUAL_RUNS = (35, 50, 100, 1000)


def parse_steps(text: str, total: int, name: str = "manipulate_at") -> tuple[int, ...]:
    """Read step numbers such as ``5, 18, 28``, ranges such as ``2-4`` and shares of the run such as ``10%``.

    text: items separated by commas; empty for no step. total: number of steps that the run makes. Step j means the
    state that enters step j, counted from 0 in the schedule that actually runs (after denoise has cut its beginning);
    j = total is the finished latent. name: of the input, for messages. Returns ascending, distinct numbers in
    [0, total]. Raises ValueError with the wrong item and what is allowed; where the run is too short, also with the
    same steps scaled to it.
    """
    steps: set[int] = set()
    items = list(_items(text, name))
    for item in items:
        if isinstance(item, float):
            steps.add(int(item * total / 100))
        elif item[-1] > total:
            raise ValueError(
                f"{name}: step {item[-1]} does not exist. This run makes {total} steps: 0 to {total - 1}, and "
                f"{total} for the finished latent. With denoise below 1 only the steps that remain are counted. "
                f"{_scaled([item for item in items if isinstance(item, range)], total)}"
            )
        else:
            steps.update(item)
    return tuple(sorted(steps))


def check_steps(text: str, name: str = "manipulate_at") -> None:
    """Raise the ValueError of `parse_steps` if `text` cannot be read, however many steps the run makes."""
    list(_items(text, name))


def _items(text: str, name: str) -> Iterator[range | float]:
    """Each item of the text: the steps that it names, or a share of the run in percent."""
    for item in (part.strip() for part in text.split(",")):
        if not item:
            continue
        found = _ITEM.fullmatch(item)
        if found is None:
            raise ValueError(
                f"{name}: {item!r} is not a step. Write step numbers (5, 18, 28), ranges (2-4) or shares of the "
                "run (10%), separated by commas."
            )
        first, last, percent = found.groups()
        if percent is not None:
            if float(percent) > 100:
                raise ValueError(f"{name}: {item} is more than 100% of the run.")
            yield float(percent)
            continue
        low, high = int(first), int(last or first)
        if low > high:
            raise ValueError(f"{name}: the range {item} runs backwards; write {high}-{low}.")
        yield range(low, high + 1)


def _scaled(named: list[range], total: int) -> str:
    """Suggest the same places in a run of `total` steps, assuming the steps were written for a usual run."""
    longest = max(item[-1] for item in named)
    meant = next((length for length in _USUAL_RUNS if length >= longest), longest)
    ends = sorted({(item[0] * total // meant, item[-1] * total // meant) for item in named})
    here = ", ".join(f"{first}" if first == last else f"{first}-{last}" for first, last in ends)
    offer = f"In place of these steps of a run of {meant}, write {here} here"
    if any(item[0] != item[-1] for item in named):
        return f"{offer}."
    shares = ", ".join(f"{share}%" for share in sorted({round(100 * item[0] / meant) for item in named}))
    return f"{offer}, or {shares} for a run of any length."


@dataclass(frozen=True)
class Policy:
    """What fills one side of the mask, inside or outside.

    kind: `keep` leaves the state x_j; `reference` is q(z_ref, σ_j), the reference at the state's own noise level;
    `cached reference` is the reference noised to a fixed `timestep` (0 to 998, less is cleaner) at every step;
    `recorded path` is the state that an inversion recorded at σ_j.
    Raises ValueError for another kind or timestep.
    """

    kind: str
    timestep: int = 0

    def __post_init__(self) -> None:
        one_of("inside or outside", self.kind, POLICIES)
        if not 0 <= self.timestep <= 998:
            raise ValueError(f"cached timestep {self.timestep} must lie between 0 (clean) and 998 (almost pure noise)")


def check_reference(reference: Tensor, policies: tuple[Policy, ...]) -> None:
    """Raise ValueError when a policy needs the reference latent [1 or B,C,h,w] and one of its batch is all zeros."""
    if any(policy.kind in (CURRENT, CACHED) for policy in policies) and not reference.flatten(1).any(1).all():
        raise ValueError(
            "the reference latent is empty (zeros, as Empty Latent Image makes them): what it fills would become noisy "
            "grey. Connect the encoded reference picture (VAE Encode) to reference."
        )


def with_frames(latent: Tensor, state: Tensor) -> Tensor:
    """A picture's latent [B,C,h,w] as one frame [B,C,1,h,w] where the state has frames, as the host's samplers do."""
    return latent.unsqueeze(2) if latent.ndim == 4 and state.ndim == 5 else latent


def fit_reference(reference: Tensor, state: Tensor) -> Tensor:
    """Return the reference latent z_ref [1 or B,C,h,w], repeated to the batch of the state [B,C,h,w].

    Raises ValueError with both sizes when channels or latent sizes differ or the batch is neither 1 nor the state's.
    """
    if reference.shape[1:] != state.shape[1:]:
        raise ValueError(
            f"the reference latent is {_size(reference)} but the sampled latent is {_size(state)}. Encode the "
            "reference picture at the size of the sampled picture, with the VAE of this model."
        )
    if reference.shape[0] not in (1, state.shape[0]):
        raise ValueError(
            f"{reference.shape[0]} reference latents for a batch of {state.shape[0]}: give one for all, or one for each"
        )
    return reference.expand_as(state)


def _size(latent: Tensor) -> str:
    return f"{' x '.join(str(n) for n in latent.shape[2:])} with {latent.shape[1]} channels"


def blend(mask: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    """m · inside + (1 - m) · outside, exact where m is 0 or 1.

    mask: float in [0,1], broadcastable to the states, 1 inside. inside, outside: states of equal shape. Where m = 1 the
    result is `inside` bit for bit, where m = 0 it is `outside`, so that a mask of ones changes nothing.
    """
    mask = mask.to(inside)
    mixed = mask * inside + (1 - mask) * outside
    return torch.where(mask == 1, inside, torch.where(mask == 0, outside, mixed))
