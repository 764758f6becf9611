"""Where things go in a picture: boxes with words, in shares of its size, before anything of it exists."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Box:
    """A rectangle and the words that belong into it; its sides are shares of the picture, from its left and top edge.

    Raises:
        ValueError: No words, or sides that leave the picture or are in the wrong order.
    """

    words: str
    left: float
    top: float
    right: float
    bottom: float

    def __post_init__(self) -> None:
        if not self.words.strip():
            raise ValueError("A box has no words: write what belongs into it.")
        if not (0 <= self.left < self.right <= 1 and 0 <= self.top < self.bottom <= 1):  # NaN is refused, too
            raise ValueError(
                f"The box of '{self.words}' has left {self.left}, top {self.top}, right {self.right}, bottom "
                f"{self.bottom}. All four must be shares of the picture from 0 to 1, left before right and top before "
                "bottom."
            )


@dataclass(frozen=True)
class Layout:
    """The boxes of a picture, in the order in which they were written; at least one.

    Raises:
        ValueError: No box.
    """

    boxes: tuple[Box, ...]

    def __post_init__(self) -> None:
        if not self.boxes:
            raise ValueError("The layout has no box: give at least one, such as 'dog: left half'.")

    @staticmethod
    def share(box: Box, height: int, width: int) -> Tensor:
        """How much of each cell of a grid the box covers, float32 [height, width] from 0 to 1.

        The shares add up to the box's area in cells, on every grid: a box smaller than a cell is still there.
        """
        down, across = _covered(box.top, box.bottom, height), _covered(box.left, box.right, width)
        return torch.outer(down, across).float()


def _covered(start: float, end: float, cells: int) -> Tensor:
    """How much of each of `cells` equal parts of [0, 1] lies between start and end, float64 [cells]."""
    edges = torch.arange(cells + 1, dtype=torch.float64)
    return (edges[1:].clamp(max=end * cells) - edges[:-1].clamp(min=start * cells)).clamp(min=0)
