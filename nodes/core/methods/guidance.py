"""Guidance by optimisation while sampling: at which steps the latent is changed, and how far.

Methods of this kind have a loss L on what the model attends to, and move the sampler's state x at noise level σ down
its gradient, x' = x - η(σ) ∇_x L, before the model sees it. What is a step of 20 to one paper is 30σ² to another,
because they write x in different units; so a step size has a unit:

    latent     η = α / c²         a step α of the latent that the network is given, c·x (Attend-and-Excite)
    variance   η = w σ²           (layout guidance)
    ddim       η = w σ / c        (LLM-grounded diffusion)
    relative   η = r σ √n / ‖∇_x L‖   n numbers change by r·σ in quadratic mean, whatever the loss
    score      η = s σ (σ - σ')   the prediction changes by s σ² (classifier guidance); σ': of the next step

c: by what the model scales its input at σ, 1/√(1 + σ²) for Stable Diffusion.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..attention.refine import AUTO
from ..choices import one_of

LATENT, VARIANCE, DDIM, RELATIVE = UNITS = ("latent", "variance", "ddim", "relative")
SCORE = "score"

# How the step size goes on over a run: α √(1 → 0.5), as published for Attend-and-Excite, or always the same.
FALLING, CONSTANT = SCHEDULES = ("falling", "constant")

# The tokens with which a word competes for a place: all of the text but the first and last of each chunk, as published,
# or the prompt's own words. AUTO is the first where padding is part of the text's meaning (SD 1.x).
WHOLE_TEXT, PROMPT_WORDS = "whole text", "prompt words"
COMPARED = (AUTO, WHOLE_TEXT, PROMPT_WORDS)

STATE, PREDICTION = "state", "prediction"
ACTS_ON = (AUTO, STATE, PREDICTION)

# The length of the runs that tables of steps are written for.
TABLE_STEPS = 50
_SHARES = re.compile(r"(\d+(?:\.\d+)?)\s*%?\s*-\s*(\d+(?:\.\d+)?)\s*%")
_NUMBERS = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")
_ENTRY = re.compile(r"(\d+)\s*:\s*(\d+(?:\.\d+)?)")
_TIMES = re.compile(r"(?:(\d+)\s*:\s*)?(\d+)")


@dataclass(frozen=True)
class GuidedTokens:
    """Which of the N tokens whose attention is given a loss is about.

    words: for each of S words, those that stand for it. compared: those that a word's attention is compared with.
    """

    words: tuple[tuple[int, ...], ...]
    compared: tuple[int, ...]


@dataclass(frozen=True)
class Part:
    """The part of a latent that a conditioning is about: `size` (h, w) cells of `grid` (H, W), from `offset` (y, x)."""

    grid: tuple[int, int]
    offset: tuple[int, int]
    size: tuple[int, int]

    @property
    def cells(self) -> tuple[slice, slice]:
        """Its rows and columns."""
        (y, x), (h, w) = self.offset, self.size
        return slice(y, y + h), slice(x, x + w)


@dataclass(frozen=True)
class WordLosses:
    """What a loss finds in B pictures: losses of the words [S,B], and the maps that they are about [S,B,h,w].

    remaining: of each picture [B], what has to become small before a change is no longer repeated.
    """

    losses: Tensor
    maps: Tensor
    remaining: Tensor


class AttentionLoss(Protocol):
    """A loss on a model's cross-attention.

    each_head: whether it needs every head's attention, or their mean. compared: with what, of `COMPARED`, or None.
    features: whether it needs those of the decoder's last but one block.
    """

    each_head: bool
    compared: str | None
    features: bool

    def layers(self, scales: Mapping[str, int]) -> tuple[str, ...]:
        """The layers that it is about unless the user chooses.

        scales: of all layers in running order, how many times coarser than the latent they are.
        """

    def of_words(
        self, maps: Sequence[Tensor], tokens: GuidedTokens, part: Part, features: Tensor | None = None
    ) -> WordLosses:
        """The loss of each word, from attention probabilities of the tokens in each layer, [B,heads or 1,h,w,N].

        part: what they are maps of. features: [B,C,h,w] of it, if it needs them.
        """

    def of_picture(self, losses: Tensor) -> Tensor:
        """The loss of each picture [B], from those of its words [S,B]."""


@dataclass(frozen=True)
class Guidance:
    """How strongly, when, and in which form a loss guides a run.

    strength: factor of every step size. steps: see `guided_steps`. unit, step_size: see above. schedule: FALLING or
    CONSTANT. act_on: the sampler's STATE, the model's PREDICTION, or AUTO: the state where the sampler hands it over.

    A step may change the state more than once, each time by a gradient of its own. refinement: `step: peak` for a run
    of 50 steps, separated by commas: there the change is made beforehand, at most `refinements` times, until what
    remains of the loss is at most 1 - peak. repeats: how often it is made at a step, see `repeats_at`; of a picture
    until what remains is below `until`. stop_for_good: as published with `until`, a picture whose loss is found to be
    that small is changed once more, and at no later step; else it is left alone until its loss has grown again.
    Raises ValueError for anything else.
    """

    strength: float = 1.0
    steps: str = "0-50%"
    unit: str = LATENT
    step_size: float = 20.0
    schedule: str = FALLING
    act_on: str = AUTO
    refinement: str = ""
    refinements: int = 20
    repeats: str = "1"
    until: float = 0.0
    stop_for_good: bool = False

    def __post_init__(self) -> None:
        one_of("unit", self.unit, (*UNITS, SCORE))
        one_of("schedule", self.schedule, SCHEDULES)
        one_of("act_on", self.act_on, ACTS_ON)
        for name, value in (("strength", self.strength), ("step_size", self.step_size), ("until", self.until)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} {value} must be 0 (off) or a positive number")
        guided_steps(self.steps, TABLE_STEPS)
        refinement_peaks(self.refinement, TABLE_STEPS)
        repeats_at(self.repeats, TABLE_STEPS)

    @property
    def is_off(self) -> bool:
        """Whether it changes nothing at all."""
        return self.strength == 0 or self.step_size == 0

    def size_at(self, step: int, steps: int) -> float:
        """The step size at `step` of a run of `steps`."""
        done = step / (steps - 1) if steps > 1 else 0.0
        return self.strength * self.step_size * (math.sqrt(1 - 0.5 * done) if self.schedule == FALLING else 1.0)


def guided_steps(text: str, total: int) -> tuple[int, ...]:
    """Steps of a run of `total`: shares such as ``0-50%`` (its first half), numbers and ranges such as ``3, 5-8``.

    They are counted from 0 among the steps that are run; those that the run does not have are left out. Ascending.
    Raises ValueError with the wrong item and what is allowed.
    """
    found: set[int] = set()
    for item in (part.strip() for part in text.split(",")):
        shares, numbers = _SHARES.fullmatch(item), _NUMBERS.fullmatch(item)
        if shares:
            first, last = (float(share) for share in shares.groups())
            # a share that names a step exactly shall not miss it by a rounding
            found.update(range(int(first * total / 100 + 1e-6), int(last * total / 100 + 1e-6)))
        elif numbers:
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            found.update(range(first, last + 1))
        if item and (not (shares or numbers) or first > last or (shares and last > 100)):
            raise ValueError(
                f"steps: {item!r} is no part of a run. Write a share of it (0-50%), step numbers (5) or ranges (0-9), "
                "separated by commas"
            )
    return tuple(sorted(step for step in found if step < total))


def refinement_peaks(text: str, total: int) -> dict[int, float]:
    """A table `0: 0.05, 10: 0.5` that was written for a run of 50 steps, for a run of `total`: step -> peak.

    Where several fall on one step, the highest peak counts. Raises ValueError for an entry that is not such a pair.
    """
    found: dict[int, float] = {}
    for item in (part.strip() for part in text.split(",")):
        entry = _ENTRY.fullmatch(item)
        if item and (entry is None or float(entry[2]) > 1):
            raise ValueError(
                f"refinement: {item!r} is not 'step: peak' with a peak from 0 to 1. Write for instance 0: 0.05, 10: "
                "0.5, 20: 0.8 (steps of a run of 50), or nothing"
            )
        if entry:
            step = round(int(entry[1]) * total / TABLE_STEPS)
            found[step] = max(found.get(step, 0.0), float(entry[2]))
    return found


def repeats_at(text: str, total: int) -> tuple[int, ...]:
    """How often the state is changed at each step of a run of `total`: always ``5`` times, or by a table.

    ``0: 4, 5: 3`` was written for a run of 50 steps: 4 times from step 0 on, 3 times from step 5 on; before the first
    entry once. Raises ValueError for an entry that is neither, or for no times.
    """
    entries: list[tuple[int, int]] = []
    for item in (part.strip() for part in text.split(",")):
        entry = _TIMES.fullmatch(item)
        if entry is None or int(entry[2]) == 0:
            raise ValueError(
                f"repeats: {item!r} is not how often. Write a number from 1 on (5), or from which step on how often "
                "(0: 4, 5: 3, 10: 2; steps of a run of 50)"
            )
        entries.append((round(int(entry[1] or 0) * total / TABLE_STEPS), int(entry[2])))
    return tuple(
        next((often for first, often in sorted(entries, reverse=True) if first <= step), 1) for step in range(total)
    )


def change(gradient: Tensor, unit: str, size: float, sigma: float, scale: float, following: float = 0) -> Tensor:
    """η ∇_x L for each picture of `gradient` [B,...]; where that is zero or not finite, the change is 0.

    sigma: σ. scale: c, see above. following: σ'. Pictures do not depend on each other.
    """
    norm = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
    if unit == RELATIVE:
        eta = size * sigma * math.sqrt(gradient[0].numel()) / norm
    else:
        own = {LATENT: 1 / scale**2, VARIANCE: sigma**2, DDIM: sigma / scale, SCORE: sigma * (sigma - following)}
        eta = size * own[unit]
    return torch.where((norm > 0) & norm.isfinite(), eta * gradient, torch.zeros_like(gradient))


def of_prediction(moved: Tensor, sigma: float, sigma_next: float) -> Tensor:
    """By how much the denoised prediction changes where the state shall change by `moved`, to first order.

    An Euler step from σ to σ' moves the state by (σ' - σ)(x - D)/σ; its part from a change of D is (σ - σ')/σ of it.
    """
    return moved * (sigma / (sigma - sigma_next))
