"""One model call whose prediction is derived by the words' attention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...core.attention.aggregate import PlacedMaps, compose
from ..attention.rows import Positives, Rows


@dataclass
class MeasuredCall:
    """The call, and what it gave.

    batch, grid: of the latents. sigma, step: where in the schedule. scale: see `prediction_scale`. pieces: each
    conditioning's saliency [S,B,C,a,b] with its rows.
    """

    positives: Positives
    batch: int
    grid: tuple[int, int]
    sigma: float
    step: int | None
    scale: float
    pieces: list[tuple[Tensor, Rows]] = field(default_factory=list)

    def framed(self) -> Tensor:
        """The conditionings' maps in one frame: weighted means where they overlap, as the host mixes predictions."""
        if len(self.pieces) == 1 and self.pieces[0][1].is_whole(self.grid):
            return self.pieces[0][0]
        channels = self.pieces[0][0].shape[2]
        placed = [PlacedMaps(m.transpose(1, 2).flatten(0, 1), row.offset, row.weight) for m, row in self.pieces]
        return compose(placed, self.grid).unflatten(0, (-1, channels)).transpose(1, 2)


def prediction_scale(sampling: Any, sigma: Tensor) -> float:
    """d z / d output: the denoised prediction z is an affine function of the network's output (eps, v, flow).

    sampling: the host's `model_sampling`. The finished latent (sigma 0) is its own prediction; there the smallest noise
    level counts.
    """
    one = sigma.flatten()[:1].clamp_min(float(sampling.sigma_min))
    unit = torch.ones((1, 1, 1, 1), device=sigma.device)
    zero = torch.zeros_like(unit)
    change = sampling.calculate_denoised(one, unit, zero) - sampling.calculate_denoised(one, zero, zero)
    return float(change)
