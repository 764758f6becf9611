"""The path of a picture through the noise levels of a schedule, as an inversion records it (EL_TRAJECTORY)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Noise levels are the same when they differ by less than this share: schedules are computed in float32.
_SAME = 1e-4


@dataclass(frozen=True)
class Trajectory:
    """The states of pictures at the noise levels of one schedule.

    levels: from the noisiest to 0. states: one for each, float32 [B,C,h,w] on the CPU, in the model's own scale; the
    last is the pictures' own latent. straight: whether Euler's method made the path, so that it is straight between
    two levels. how: the steps of the schedule in words, for messages. Raises ValueError where the numbers of levels and
    states differ, or the levels do not fall to 0.
    """

    levels: tuple[float, ...]
    states: tuple[Tensor, ...]
    straight: bool
    how: str

    def __post_init__(self) -> None:
        if len(self.levels) != len(self.states):
            raise ValueError(f"{len(self.levels)} noise levels, but {len(self.states)} states")
        if list(self.levels) != sorted(set(self.levels), reverse=True) or self.levels[-1] != 0:
            raise ValueError(f"noise levels fall to 0, these do not: {listed(self.levels)}")

    @property
    def picture(self) -> Tensor:
        """The state without noise [B,C,h,w]."""
        return self.states[-1]

    def at(self, sigma: float) -> Tensor:
        """The state [B,C,h,w] at a noise level; between two levels of a straight path the one on the line.

        Raises ValueError above the first level, and between two levels of another path.
        """
        i = self._index(sigma)
        if i is not None:
            return self.states[i]
        below = next((i for i, level in enumerate(self.levels) if level < sigma), 0)
        if not self.straight or below == 0:
            raise ValueError(
                f"the recorded path has no state at the noise level {sigma:.4g}, only at those of {self.how}: "
                f"{listed(self.levels)}. {self._fix()}"
            )
        high, low = self.levels[below - 1 : below + 1]
        return torch.lerp(self.states[below], self.states[below - 1], (sigma - low) / (high - low))

    def check_levels(self, sigmas: Sequence[float]) -> None:
        """Raise ValueError, with both schedules, unless a run's levels are this path's, or one part of them."""
        first = self._index(sigmas[0])
        part = () if first is None else self.levels[first : first + len(sigmas)]
        if len(part) != len(sigmas) or not all(_same(*pair) for pair in zip(part, sigmas, strict=True)):
            raise ValueError(
                f"the sampler's schedule is not the inversion's: it samples the noise levels {listed(sigmas)} in "
                f"{len(sigmas) - 1} steps, but {self.how} recorded {listed(self.levels)}. {self._fix()}"
            )

    def check_size(self, state: Tensor, node: str) -> None:
        """Raise ValueError unless a sampler's state [B,C,h,w], also that of a twin run, is of these pictures' size.

        node: the name of the one that made the path.
        """
        own = self.picture
        if state.shape[1:] != own.shape[1:] or len(state) % len(own):
            raise ValueError(
                f"the sampled latent has the shape {tuple(state.shape)}, but what was inverted {tuple(own.shape)}: "
                f"connect the latent output of {node} to the sampler"
            )

    def _index(self, sigma: float) -> int | None:
        return next((i for i, level in enumerate(self.levels) if _same(level, sigma)), None)

    def _fix(self) -> str:
        return (
            "Give the sampler the same steps, scheduler and denoise, and choose one that calls the model at these "
            "levels (euler, ddim, dpmpp_2m). KSampler leaves a level out for dpm_2 and uni_pc: use SamplerCustom for "
            "them, with the same SIGMAS for both"
        )


def listed(levels: Sequence[float]) -> str:
    """Noise levels as they are written in a sentence: all of a few, the ends of many."""
    shown = [f"{level:.4g}" for level in levels]
    return ", ".join(shown if len(shown) <= 6 else [*shown[:3], "...", *shown[-2:]])


def _same(level: float, other: float) -> bool:
    return abs(level - other) <= _SAME * max(level, other)
