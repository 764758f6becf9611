"""The axes of a plot: which values they reach, where their ticks are, and where a value lies on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# How many parts of an axis its ticks make, about.
_PARTS = 4
# Values that differ by a smaller part of themselves lie on one line.
_FLAT = 1e-6


@dataclass(frozen=True)
class Axis:
    """An axis from `low` to `high`, which differ, with ticks at some values between them."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Where a value lies: 0 at the low end, 1 at the high one."""
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Frame:
    """The part of a page, in pixels from its upper left corner, that two axes span. up: what its height shows."""

    left: int
    top: int
    right: int
    bottom: int
    across: Axis
    up: Axis

    def place(self, x: float, y: float) -> tuple[int, int]:
        """The pixel (column, row) of a point."""
        column = self.left + self.across.share(x) * (self.right - self.left)
        return round(column), round(self.bottom - self.up.share(y) * (self.bottom - self.top))


def value_axis(values: Sequence[float]) -> Axis:
    """An axis with round ticks that reaches all `values`, and 0 where that is not far from them.

    Raises ValueError for no value, or one that is not finite.
    """
    if not values or not all(map(math.isfinite, values)):
        raise ValueError(f"an axis needs finite values, got {[each for each in values if not math.isfinite(each)]}")
    low, high = min(values), max(values)
    if 0 <= low <= high / 2:
        low = 0.0
    if high - low <= _FLAT * max(abs(low), abs(high)):
        low, high = low - abs(low) / 2, high + (abs(high) / 2 or 1.0)
    tick = _round_up((high - low) / _PARTS)
    first, last = math.floor(low / tick + 1e-9), math.ceil(high / tick - 1e-9)
    ticks = tuple(number * tick for number in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def step_axis(first: int, last: int) -> Axis:
    """An axis of whole steps; half a step is free on either side. A tick at each step, or at round ones of many."""
    tick = max(1, round(_round_up((last - first) / (3 * _PARTS)))) if last > first else 1
    start = first if tick == 1 else math.ceil(first / tick) * tick
    return Axis(first - 0.5, last + 0.5, tuple(float(step) for step in range(start, last + 1, tick)))


def _round_up(width: float) -> float:
    """The next of 1, 2, 5 and 10, times a power of ten."""
    power = 10.0 ** math.floor(math.log10(width))
    return power * next(each for each in (1, 2, 5, 10) if each * power >= width * (1 - 1e-9))
