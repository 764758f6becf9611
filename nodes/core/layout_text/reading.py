"""The layout that a text describes, whoever wrote it: a person or a language model."""

from __future__ import annotations

from dataclasses import dataclass

from ..choices import one_of
from ..layout import Box, Layout
from .lines import FORMS, read_lines
from .planners import read_planner
from .units import AUTO, ORDERS, UNITS, Entry, entry, unit_of

MOST_BOXES = 64
MOST_CHARACTERS = 50_000

_THOUGHTS = "</think>"  # what a language model thinks before it answers, drafts too, ends with it


@dataclass(frozen=True)
class ReadLayout:
    """A layout, its entries in the text, one for each box, and the unit in which plain numbers were read."""

    layout: Layout
    entries: tuple[Entry, ...]
    unit: str

    def table(self) -> str:
        """A line for each box: its words and its sides in percent of the picture."""
        return "\n".join(_line(box) for box in self.layout.boxes)


def read_layout(text: str, numbers: str = AUTO, order: str = AUTO, size: tuple[int, int] = (512, 512)) -> ReadLayout:
    """Read the boxes of a text: entries as of `lines`, or the lists and objects of a language model as of `planners`.

    numbers: the unit of plain numbers, one of UNITS; with `auto` as `unit_of` finds it. order: what the four numbers
    of a list are, one of ORDERS; with `auto` x, y, width, height, but corners for the keys bbox_2d and box_2d. size:
    (height, width) for the unit `pixels`. Raises ValueError, which quotes the line, for whatever is no box; also for a
    text without a box, with more than MOST_BOXES, or longer than MOST_CHARACTERS.
    """
    one_of("numbers", numbers, UNITS)
    one_of("order", order, ORDERS)
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"The layout has {len(text)} characters, and at most {MOST_CHARACTERS} are read: shorten it.")
    start = max(text.rfind(_THOUGHTS), 0)
    start += len(_THOUGHTS) if start or text.startswith(_THOUGHTS) else 0
    written = read_planner(text, start)
    if written is None:
        written = read_lines(text, start)
    if not written:
        raise ValueError(f"The layout has no box: {FORMS}.")
    if len(written) > MOST_BOXES:
        raise ValueError(f"The layout has {len(written)} boxes, and at most {MOST_BOXES} are drawn: take some out.")
    unit = unit_of(text, written, numbers)
    entries = tuple(entry(text, each, unit, order, size) for each in written)
    return ReadLayout(Layout(tuple(each.box for each in entries)), entries, unit)


def _line(box: Box) -> str:
    sides = {"left": box.left, "top": box.top, "width": box.right - box.left, "height": box.bottom - box.top}
    return f"{box.words}: " + ", ".join(f"{name} {100 * share:.4g}%" for name, share in sides.items())
