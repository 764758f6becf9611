"""The connected parts of a mask: which of them are kept, and their holes. Parts are what scipy.ndimage labels.

Places that touch, also at a corner, are of one part; a hole is what the picture's edge cannot be reached from without
crossing the mask, by sides alone.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

EVERY, LARGEST, TOUCHING = KEPT_PARTS = ("all", "largest", "touching points")

_CORNERS_TOUCH = np.ones((3, 3), dtype=bool)


def largest_parts(inside: Tensor, count: int) -> Tensor:
    """The `count` largest parts of each mask; of equally large ones, those that begin further up, then further left.

    inside: bool [...,h,w]; the result has the same shape and device. Raises ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"{count} largest parts: keep at least 1")

    def largest(mask: np.ndarray) -> np.ndarray:
        parts, _ = ndimage.label(mask, _CORNERS_TOUCH)
        sizes = np.bincount(parts.ravel())[1:]
        return np.isin(parts, 1 + np.argsort(-sizes, kind="stable")[:count])

    return _each(inside, largest)


def parts_at(inside: Tensor, points: Tensor) -> Tensor:
    """The parts of each mask in which any of the points lies. inside: bool [...,h,w]. points: [P,2], (x, y) in places.

    A mask without a part at any point becomes empty. Raises ValueError for a point outside of the mask.
    """
    height, width = inside.shape[-2:]
    columns, rows = (points.floor().long() - (points == points.new_tensor([width, height])).long()).unbind(1)
    if not ((columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)).all():
        raise ValueError(f"a point of {points.tolist()} is outside of the mask of {width}x{height} places")

    def touching(mask: np.ndarray) -> np.ndarray:
        parts, _ = ndimage.label(mask, _CORNERS_TOUCH)
        touched = parts[rows.numpy(), columns.numpy()]
        return np.isin(parts, touched[touched > 0])

    return _each(inside, touching)


def fill_holes(inside: Tensor) -> Tensor:
    """Each mask with its holes inside. inside: bool [...,h,w]; the result has the same shape and device."""
    return _each(inside, ndimage.binary_fill_holes)


def _each(inside: Tensor, change: Callable[[np.ndarray], np.ndarray]) -> Tensor:
    """`change` of every mask."""
    masks = inside.flatten(0, -3).cpu().numpy()
    return torch.from_numpy(np.stack([change(mask) for mask in masks])).to(inside.device).view_as(inside)
