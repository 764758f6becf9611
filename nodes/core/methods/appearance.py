"""What the methods share that give a picture the structure of one picture and the appearance of another.

Three pictures are made side by side: the structure, the appearance, and the target, which begins like the structure.
In self-attention layers of the decoder the target takes something of the appearance for a part of the run, but every
few steps, in the first part, of the structure. Later its state also gets the appearance's mean and standard deviation,
channel by channel (AdaIN, Huang & Belongie 2017). The model's prediction may be led on from the one without any of
this:

    ε = ε_plain + s (ε_edited - ε_plain)

where s falls along the run to half of what it begins with, but not below 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .prompt_to_prompt import Window

APPEARANCE, STRUCTURE = "appearance", "structure"

# Layers of the decoder that are at most so many times coarser than the latent: 64x64 and 32x32 of 64x64, as published.
COARSEST = 2

# Added to a variance, so that nothing is divided by zero.
_EPS = 1e-5


@dataclass(frozen=True)
class Schedule:
    """Which picture a layer takes of, and when.

    fine: when layers on the latent's own grid do; coarse: coarser ones. every: each so many steps it is the structure;
    0 for never. structure: the part of the run in which that is so. statistics: from which share of the steps on the
    state gets the appearance's statistics; 1 is never. Published for Cross-Image Attention, whose run has 68 steps:
    from step 10 to the end, each 5th the structure before step 40, statistics from step 20 on; Eye-for-an-Eye has them
    from step 50 on. Raises ValueError for a negative `every`, and a `statistics` that is no share.
    """

    fine: Window
    coarse: Window
    every: int
    structure: Window
    statistics: float

    def __post_init__(self) -> None:
        if self.every < 0:
            raise ValueError(f"structure_every is {self.every}, but it is a number of steps: 1 or more, or 0 for never")
        Window(self.statistics)

    @property
    def is_empty(self) -> bool:
        """Whether no layer takes anything at any step."""
        return all(window.start == window.end for window in (self.fine, self.coarse))

    def taken_from(self, step: int, steps: int, coarser: int) -> str | None:
        """APPEARANCE or STRUCTURE, of which a layer takes at `step` of a run of `steps`; None where it takes nothing.

        coarser: how many times coarser than the latent the layer's grid is.
        """
        window = self.coarse if coarser > 1 else self.fine
        if not window.includes(step, steps):
            return None
        structure = self.every and step % self.every == 0 and self.structure.includes(step, steps)
        return STRUCTURE if structure else APPEARANCE

    def normalised(self, steps: int) -> tuple[int, ...]:
        """The steps that a state with the appearance's statistics enters; `steps` stands for the finished one."""
        return () if self.statistics == 1 else tuple(range(max(1, int(self.statistics * steps)), steps + 1))


@dataclass(frozen=True)
class AppearanceTransfer:
    """When something is taken over, and how far that leads. guidance: s at the beginning; 0 is off, 1 is as it comes.

    Raises ValueError for a negative guidance.
    """

    schedule: Schedule
    guidance: float

    def __post_init__(self) -> None:
        if self.guidance < 0:
            raise ValueError(f"guidance is {self.guidance:g}, but it must be 0 (off) or more")

    @property
    def takes(self) -> bool:
        """Whether anything is ever taken over in a layer."""
        return bool(self.guidance) and not self.schedule.is_empty

    def taken_from(self, step: int, steps: int, coarser: int) -> str | None:
        """See `Schedule.taken_from`; None if the guidance is off."""
        return self.schedule.taken_from(step, steps, coarser) if self.guidance else None

    def led_on(self, step: int, steps: int) -> float:
        """s at `step` of a run of `steps`."""
        last = max(self.guidance / 2, min(self.guidance, 1.0))
        return self.guidance + (last - self.guidance) * step / max(1, steps - 1)


def with_statistics(
    state: Tensor, appearance: Tensor, inside: Tensor | None = None, other: Tensor | None = None
) -> Tensor:
    """A state [B,C,h,w] whose channels have the mean and the standard deviation of those of the appearance (AdaIN).

    inside, other: bool [B,1,h,w], the places of the state and of the appearance that count, of which those of the state
    alone change; None for all. A picture of which fewer than two places count in either stays as it is.
    """
    own, theirs = (_statistics(*each) for each in ((state, inside), (appearance, other)))
    changed = ((state.float() - own[0]) / own[1] * theirs[1] + theirs[0]).to(state)
    for counted in (inside, other):
        if counted is not None:
            enough = counted.flatten(1).sum(1).view(-1, 1, 1, 1) > 1
            changed = changed.where(enough if counted is other else counted & enough, state)
    return changed


def _statistics(x: Tensor, counted: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation [B,C,1,1] of each channel, in float32, over the places that count."""
    x = x.float()
    weight = x.new_ones(()).expand_as(x) if counted is None else counted.to(x).expand_as(x)
    count = weight.sum((-2, -1), keepdim=True)
    mean = (x * weight).sum((-2, -1), keepdim=True) / count.clamp_min(1)
    variance = ((x - mean).square() * weight).sum((-2, -1), keepdim=True) / (count - 1).clamp_min(1)
    return mean, (variance + _EPS).sqrt()
