"""Bilinear enlarging by its definition, in float64: what the pack's is compared with."""

from __future__ import annotations

import math

import numpy as np


def along(source: int, target: int) -> np.ndarray:
    """How much each of `source` places counts at each of `target` places, [target,source]: centres at +1/2, edges kept.

    Every place of the target lies between two centres of the source and takes the share of each that is near.
    """
    weights = np.zeros((target, source))
    for i in range(target):
        at = min(max((i + 0.5) * source / target - 0.5, 0.0), source - 1.0)
        low = math.floor(at)
        high = min(low + 1, source - 1)
        weights[i, low] += 1 - (at - low)
        weights[i, high] += at - low
    return weights


def enlarged(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Maps [...,h,w] at this size."""
    down, across = along(maps.shape[-2], size[0]), along(maps.shape[-1], size[1])
    return np.einsum("yh,...hw,xw->...yx", down, maps.astype(np.float64), across)
