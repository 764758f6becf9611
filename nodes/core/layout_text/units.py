"""What the numbers of boxes mean: their unit, and whether they are corners or sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..layout import Box
from .places import ALLOWED, read_place
from .written import BOTTOM, CORNERS, HEIGHT, LEFT, RIGHT, SIZES, TOP, WIDTH, Span, WrittenBox, mistake

AUTO = "auto"
SHARES, PERCENT, PLANNER, THOUSANDTHS, PIXELS = "shares", "percent", "pixels of 512", "thousandths", "pixels"
UNITS = AUTO, SHARES, PERCENT, PLANNER, THOUSANDTHS, PIXELS
ORDERS = {AUTO: (), "x, y, width, height": SIZES, "left, top, right, bottom": CORNERS}

_FULL = {SHARES: 1, PERCENT: 100, PLANNER: 512, THOUSANDTHS: 1000}
# Language models with these names for a box answer so; all others are taken for x, y, width, height.
_MODEL_ORDERS = {"bbox2d": CORNERS, "box2d": (TOP, LEFT, BOTTOM, RIGHT)}
_ACROSS = LEFT, RIGHT, WIDTH
_ROUNDING = 1e-6  # shares: sums such as 0.7 + 0.3 may miss 1 by that


@dataclass(frozen=True)
class Site:
    """A part of the text that changes when its box is moved: from `start` to `end`.

    names: which sides stand there, separated by commas. full: for each, the number that is the whole picture. suffix:
    what follows each number that is put there.
    """

    start: int
    end: int
    names: tuple[str, ...]
    full: tuple[float, ...]
    suffix: str = ""


@dataclass(frozen=True)
class Entry:
    """A box, where its entry and its words stand in the text, whether the words are quoted, and its sites."""

    box: Box
    span: Span
    words_span: Span
    quoted: bool
    sites: tuple[Site, ...]


def unit_of(text: str, boxes: Sequence[WrittenBox], unit: str) -> str:
    """The unit of the plain numbers of these boxes: `unit`, or what `auto` finds.

    `auto`: shares if no number is above 1; else thousandths for the keys bbox_2d and box_2d, and pixels of a picture of
    512 x 512 for all others. Raises ValueError where numbers above 1 and fractions of 1 are mixed.
    """
    plain = [box for box in boxes if box.numbers and not any(number.percent for number in box.numbers)]
    if unit != AUTO or not plain:
        return unit if unit != AUTO else SHARES
    small = [box for box in plain if all(number.value <= 1 for number in box.numbers)]
    if len(small) == len(plain):
        return SHARES
    if fractions := [box for box in small if any(number.value % 1 for number in box.numbers)]:
        what = (
            "its numbers are shares of the picture, but other boxes of the text have numbers above 1. Use one unit for "
            "all of them, or percent signs, or set numbers to one unit"
        )
        raise mistake(text, fractions[0].span, what)
    return THOUSANDTHS if all(box.key in _MODEL_ORDERS for box in plain) else PLANNER


def entry(text: str, written: WrittenBox, unit: str, order: str, size: tuple[int, int]) -> Entry:
    """The box of what is written, in shares.

    unit: as `unit_of` gives it. order: one of ORDERS, for lists that do not name their numbers. size: (height, width)
    that the unit `pixels` refers to. Raises ValueError for a place that there is not, for other than four numbers, and
    for a box that leaves the picture or has no area.
    """
    names = written.names or ORDERS[order] or _MODEL_ORDERS.get(written.key, SIZES)
    if written.place is not None:
        sides = read_place(written.place.value)
        if sides is None:
            what = f"'{written.place.value}' is no place. Named places are {ALLOWED}. Or write four numbers"
            raise mistake(text, written.span, f"{what}: {', '.join(ORDERS[order] or SIZES)}")
        names = ORDERS[order] or SIZES
        sites = (Site(written.place.start, written.place.end, names, (100.0,) * 4, "%"),)
        return _entry(written, Box(written.words, *sides), sites)
    if len(written.numbers) != 4:
        what = f"{len(written.numbers)} numbers where four are needed: {', '.join(names)}. Decimals have a point"
        raise mistake(text, written.span, what)
    percent = {number.percent for number in written.numbers}
    if len(percent) > 1:
        raise mistake(
            text, written.span, "only some of its numbers have a percent sign: give it to all four or to none"
        )
    full = [_full(PERCENT if percent == {True} else unit, name, size) for name in names]
    value = {name: number.value / whole for name, number, whole in zip(names, written.numbers, full, strict=True)}
    right = value[RIGHT] if RIGHT in value else value[LEFT] + value[WIDTH]
    bottom = value[BOTTOM] if BOTTOM in value else value[TOP] + value[HEIGHT]
    box = _checked(text, written, (value[LEFT], value[TOP], right, bottom), names, PERCENT if True in percent else unit)
    sites = tuple(
        Site(number.start, number.end, (name,), (whole,))
        for name, number, whole in zip(names, written.numbers, full, strict=True)
    )
    return _entry(written, box, sites)


def _entry(written: WrittenBox, box: Box, sites: tuple[Site, ...]) -> Entry:
    return Entry(box, written.span, written.words_span, written.quoted, sites)


def _full(unit: str, name: str, size: tuple[int, int]) -> float:
    """The number that is the whole picture, from its left to its right or from its top to its bottom."""
    return float(size[name in _ACROSS] if unit == PIXELS else _FULL[unit])


def _checked(text: str, written: WrittenBox, sides: tuple[float, ...], names: Sequence[str], unit: str) -> Box:
    """The box of these sides (left, top, right, bottom). Raises ValueError unless they are one inside the picture."""
    read_as = f"Its numbers are read as {', '.join(names)} in {unit}: if they are something else, set order or numbers"
    if not all(map(math.isfinite, sides)):
        raise mistake(text, written.span, "its numbers are too large")
    left, top, right, bottom = sides
    outside = [
        f"its {name} is at {100 * side:.4g} % of the picture"
        for name, side in zip(CORNERS, sides, strict=True)
        if not -_ROUNDING <= side <= 1 + _ROUNDING
    ]
    if outside:
        raise mistake(text, written.span, f"{' and '.join(outside)}, which is outside. {read_as}")
    left, top, right, bottom = (min(max(side, 0.0), 1.0) for side in sides)
    if not (left < right and top < bottom):
        what = "width" if left >= right else "height"
        raise mistake(text, written.span, f"it has no {what}, or a negative one. {read_as}")
    return Box(written.words, left, top, right, bottom)
