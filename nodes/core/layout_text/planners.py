"""Layouts as language models write them: which of the lists and objects in an answer are boxes with words.

The forms that are read: pairs of words and four numbers (LLM-grounded Diffusion, Lian et al. 2023), objects with a
label and a box (`bbox_2d` of Qwen-VL, `box_2d` of Gemini, and the other LABELS and BOXES), and one object whose names
are the words. What stands around them does not count.
"""

from __future__ import annotations

from .lines import read_place_text
from .literals import Literal, LiteralError, find_literals
from .written import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, WrittenBox, line_at, mistake

LABELS = ("label", "name", "object", "phrase", "caption", "description", "text", "category", "class", "words", "title")
BOXES = (
    "bbox2d",
    "box2d",
    "bbox",
    "box",
    "boundingbox",
    "coordinates",
    "position",
    "location",
    "rect",
    "region",
    "place",
)
FORM = '[{"label": "dog", "bbox": [x, y, width, height]}, …]'

_SIDES = {
    **dict.fromkeys(("x", "left", "x0", "xmin", "minx"), LEFT),
    **dict.fromkeys(("y", "top", "y0", "ymin", "miny"), TOP),
    **dict.fromkeys(("right", "x2", "xmax", "maxx"), RIGHT),
    **dict.fromkeys(("bottom", "y2", "ymax", "maxy"), BOTTOM),
    **dict.fromkeys(("width", "w"), WIDTH),
    **dict.fromkeys(("height", "h"), HEIGHT),
}


def read_planner(text: str, start: int = 0) -> list[WrittenBox] | None:
    """The boxes of the lists and objects in a text from `start` on; None if it has none but lists of plain numbers.

    Objects that stand one after another, each with one box, are one list. Raises ValueError for a list that is not
    complete, for lists without a box, for a box without words, and for several lists of boxes.
    """
    try:
        literals = find_literals(text, start)
    except LiteralError as error:
        what = f"at '{text[error.at : error.at + 20]}' {error}. Write a list such as {FORM}"
        raise mistake(text, line_at(text, error.at), what) from error
    if not literals:
        return None
    lists = [found for each in literals if (found := _boxes(text, each))]
    if not lists:
        what = f"no box is in it. Write a list such as {FORM}; words may be called {', '.join(LABELS)}"
        raise mistake(text, (literals[0].start, literals[0].end), what)
    if len(lists) > 1 and any(len(each) > 1 for each in lists):
        what = f"with it begins list 2 of {len(lists)} with boxes; leave one of them in the text"
        raise mistake(text, lists[1][0].span, what)
    return [box for each in lists for box in each]


def _boxes(text: str, literal: Literal) -> list[WrittenBox]:
    """The boxes that a list or an object holds, in whatever depth; none if it holds none."""
    one = _box(text, literal)
    if one:
        return [one]
    value = literal.value
    if isinstance(value, dict):
        if value and all(isinstance(key.value, str) and _numbers(box) for key, box in value.values()):
            return [_written(key, box, (key.start - 1, box.end)) for key, box in value.values()]
        inner = [box for _, box in value.values()]
    else:
        inner = value if isinstance(value, list) else []
        each = [_box(text, item) for item in inner]
        if any(each):
            for item, box in zip(inner, each, strict=True):
                if box is None:
                    what = f"it has no words with a box, unlike others of its list. Write it as in {FORM}"
                    raise mistake(text, (item.start, item.end), what)
            return [box for box in each if box]
    lists = [found for item in inner if (found := _boxes(text, item))]
    if len(lists) > 1:
        what = f"with it begins list 2 of {len(lists)} with boxes; leave one of them in the text"
        raise mistake(text, lists[1][0].span, what)
    return lists[0] if lists else []


def _box(text: str, literal: Literal) -> WrittenBox | None:
    """The box that a pair or an object is; None if it is none."""
    span = literal.start, literal.end
    if isinstance(literal.value, list):
        pair = literal.value
        is_box = len(pair) == 2 and isinstance(pair[0].value, str) and _numbers(pair[1])
        return _written(pair[0], pair[1], span) if is_box else None
    if not isinstance(literal.value, dict):
        return None
    named = {_plain(name): box for name, (_, box) in literal.value.items()}
    label = next((named[name] for name in LABELS if name in named and isinstance(named[name].value, str)), None)
    if _numbers(literal):
        box, key = literal, ""
    else:
        key = next((name for name in BOXES if name in named and _numbers(named[name])), "")
        box = named.get(key)
    if box is None and label is not None:
        place = next((named[name] for name in BOXES if name in named and isinstance(named[name].value, str)), None)
        if place is None:
            return None
        numbers, named_place = read_place_text(text, place.start, place.end)
        return WrittenBox(label.value, (label.start, label.end), span, True, numbers, place=named_place)
    if box is None:
        return None
    if label is None:
        if len(named) > 1 and all(_numbers(each) for each in named.values()):
            return None  # words happen to be called box or place
        raise mistake(text, span, f"this box has no words. Give it one of: {', '.join(LABELS)}, as in {FORM}")
    return _written(label, box, span, key)


def _written(label: Literal, box: Literal, span: tuple[int, int], key: str = "") -> WrittenBox:
    numbers, names = _numbers(box)
    return WrittenBox(label.value, (label.start, label.end), span, True, numbers, names, key)


def _numbers(box: Literal) -> tuple[tuple[Literal, ...], tuple[str, ...]] | None:
    """The numbers of a box and what each is, if that is said: a list of numbers, or an object with four sides."""
    if isinstance(box.value, list):
        numbers = tuple(box.value)
        return (numbers, ()) if numbers and all(isinstance(each.value, float) for each in numbers) else None
    if not isinstance(box.value, dict):
        return None
    sides = {}
    has_corners = "x0" in map(_plain, box.value)  # then x1 and y1 are the other corner
    for name, (_, number) in box.value.items():
        plain = _plain(name)
        if plain in ("x1", "y1"):
            side = {"x1": (LEFT, RIGHT), "y1": (TOP, BOTTOM)}[plain][has_corners]
        else:
            side = _SIDES.get(plain)
        if side and isinstance(number.value, float):
            sides[side] = number
    ends = (RIGHT if RIGHT in sides else WIDTH), (BOTTOM if BOTTOM in sides else HEIGHT)
    names = LEFT, TOP, *ends
    if not all(name in sides for name in names):
        return None
    return tuple(sides[name] for name in names), names


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")
