"""What every place of a picture attends to: the self-attention of all heads and layers, added up on one grid (DiffSeg).

    A = sum_g r_g S_g / sum_g r_g      r_g = sqrt(h w) of a grid g, S_g the mean over its layers and their heads

Rows of A are places that look, columns the places that are looked at. A coarser grid's columns are enlarged bilinearly,
after which every row sums to 1 again, and its rows are repeated, as in DiffSeg (Tian et al. 2024).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .probabilities import SUMMED_AT_ONCE, probabilities

# A has at most this many rows and columns, in float32 64 MiB; finer layers are read at so many places, evenly spread.
MOST_PLACES = 4096

# Rows that are enlarged at once.
ROWS = 256


class PlaceMaps:
    """Adds up the self-attention of a picture's layers, in any order; of each it keeps no more than the grid's sum."""

    def __init__(self) -> None:
        # grid -> the sum of its layers [h*w,h*w], each of rows that sum to 1.
        self._sums: dict[tuple[int, int], Tensor] = {}

    def add(
        self,
        q: Tensor,
        k: Tensor,
        heads: int,
        grid: tuple[int, int],
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
    ) -> None:
        """Add a layer: the mean over rows and heads of softmax(q k^T), in float32.

        q, k: [B,h*w,H*d] on `grid` (h, w). heads: H. mask, scale: see `probabilities`.
        """
        places = most_places(grid)
        looking = nearest(grid, places, q.device)
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., looking, :]
        if places not in self._sums:
            size = math.prod(places)
            self._sums[places] = torch.zeros((size, size), dtype=torch.float32, device=q.device)
        total = self._sums[places]
        for rows, p in probabilities(q[:, looking], k, heads, SUMMED_AT_ONCE, mask=mask, scale=scale):
            seen = p.mean((0, 1))
            del p  # else it would take memory beside the next
            # every layer counts alike, also one whose columns were averaged
            total[rows] += seen if places == grid else _each_to_one(_on_grid(seen, grid, places))

    def matrix(self) -> tuple[Tensor, tuple[int, int]]:
        """A, float32 [h*w,h*w] of rows that sum to 1, and its grid (h, w): the finest there is.

        What was added is used up. Raises ValueError when there is nothing, or when it is not finite.
        """
        if not self._sums:
            raise ValueError("no self-attention layer to add up")
        sums, self._sums = self._sums, {}
        whole = sum(map(_weight, sums))
        grid = max(sums, key=math.prod)
        # in place: beside the sums there is never a second matrix of this size
        total = _each_to_one(sums.pop(grid)).mul_(_weight(grid) / whole)
        for own, layers in sums.items():
            rows = nearest(own, grid, total.device)
            layers = layers.to(total.device)
            for start in range(0, len(rows), ROWS):
                some = slice(start, start + ROWS)
                enlarged = _each_to_one(_on_grid(layers[rows[some]], own, grid))
                total[some] += enlarged.mul_(_weight(own) / whole)
        if not torch.isfinite(total.sum(-1)).all():
            raise ValueError(
                "the model's self-attention is not finite (did half precision overflow?). Run the model in another "
                "precision, such as bfloat16 or float32."
            )
        return total, grid


def most_places(grid: tuple[int, int]) -> tuple[int, int]:
    """The grid itself, or, if it has more than `MOST_PLACES`, one of its proportions that has not."""
    shrink = math.sqrt(MOST_PLACES / math.prod(grid))
    return grid if shrink >= 1 else tuple(max(1, math.floor(side * shrink)) for side in grid)


def nearest(source: tuple[int, int], target: tuple[int, int], device: torch.device) -> Tensor:
    """For every place of the grid `target` the number of the place of `source` that holds its centre: int64 [h*w]."""
    (height, width), (h, w) = source, target
    # whole numbers, because rounding must not decide: (i + 1/2) * source / target, rounded down
    y = (2 * torch.arange(h, device=device) + 1) * height // (2 * h)
    x = (2 * torch.arange(w, device=device) + 1) * width // (2 * w)
    return (y.unsqueeze(1) * width + x).flatten()


def _on_grid(rows: Tensor, own: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """Columns [n,h*w] brought from their `own` grid to another: bilinear where that is finer, else area averages."""
    if own == grid:
        return rows
    finer = math.prod(grid) > math.prod(own)
    maps = rows.unflatten(-1, own).unsqueeze(1)
    return F.interpolate(maps, size=grid, mode="bilinear" if finer else "area").flatten(1)


def _each_to_one(rows: Tensor) -> Tensor:
    """Divide every row by its sum, in place."""
    return rows.div_(rows.sum(-1, keepdim=True))


def _weight(grid: tuple[int, int]) -> float:
    return math.sqrt(math.prod(grid))
