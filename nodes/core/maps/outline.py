"""The outline of a mask: the lines between the places inside and those outside."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def outline(inside: Tensor) -> Tensor:
    """The lines around what is inside a mask, each as long as it goes: whole numbers [N,4], (x, y) of both ends.

    inside: bool [h,w]. A place is a square of side 1, the first one's upper left corner is (0, 0). What lies beyond the
    mask is outside. First the vertical lines, then the horizontal ones; an even number of vertical lines crosses the
    way from the left to a place outside, an odd number that to a place inside.
    """
    x, top, bottom = _runs(_steps(inside).T)
    y, left, right = _runs(_steps(inside.T).T)
    vertical, horizontal = torch.stack([x, top, x, bottom], 1), torch.stack([left, y, right, y], 1)
    return torch.cat([vertical, horizontal])


def _steps(inside: Tensor) -> Tensor:
    """Whether the mask changes from each place of a row to the next: [h,w] to [h,w+1]."""
    padded = F.pad(inside, (1, 1))
    return padded[:, 1:] != padded[:, :-1]


def _runs(steps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The runs of true values in the rows [R,n]: the row, first place and the one after the last of each."""
    padded = F.pad(steps, (1, 1)).int().diff(dim=1)
    rows, first = (padded == 1).nonzero(as_tuple=True)
    _, after = (padded == -1).nonzero(as_tuple=True)
    return rows, first, after
