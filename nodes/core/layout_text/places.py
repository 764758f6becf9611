"""Named places of a picture: left half, right third, top left corner, centre, 左半."""

from __future__ import annotations

import re

# left, top, right, bottom in shares of the picture
Sides = tuple[float, float, float, float]

ALLOWED = (
    "left, right, top or bottom, alone or with half, third, quarter, two thirds or three quarters; top left and the "
    "other quarters of the picture, also with third or corner; centre, top centre and the like; middle column; middle "
    "row; whole picture"
)

# Chinese is read as the same words in English. Longer ones come first.
_CHINESE = {
    "整张图": "whole",
    "整个画面": "whole",
    "全图": "whole",
    "三分之一": "third",
    "三分之二": "two thirds",
    "四分之一": "quarter",
    "四分之三": "three quarters",
    "一半": "half",
    "半": "half",
    "角": "corner",
    "中间": "centre",
    "中央": "centre",
    "居中": "centre",
    "中": "centre",
    "左": "left",
    "右": "right",
    "上": "top",
    "下": "bottom",
    "列": "column",
    "行": "row",
}
_CHINESE_FILLERS = re.compile("[部边侧方面的]")
_SYNONYMS = {
    "upper": "top",
    "lower": "bottom",
    "center": "centre",
    "middle": "centre",
    "everywhere": "whole",
    "all": "whole",
    "full": "whole",
    "entire": "whole",
    "thirds": "third",
    "quarters": "quarter",
}
_FILLERS = {"the", "a", "of", "in", "at", "on", "picture", "image", "canvas", "side", "part", "area", "hand"}
_LENGTHS = {
    "": 1 / 2,
    "half": 1 / 2,
    "third": 1 / 3,
    "quarter": 1 / 4,
    "two third": 2 / 3,
    "three quarter": 3 / 4,
}
# Of a place with two directions: a quarter is one of the picture's four quarters.
_CORNER_LENGTHS = {"": 1 / 2, "quarter": 1 / 2, "third": 1 / 3, "corner": 1 / 3}
_ACROSS, _DOWN = ("left", "right"), ("top", "bottom")
_WHOLE, _MIDDLE, _MIDDLE_THIRD = (0.0, 1.0), (0.25, 0.75), (1 / 3, 2 / 3)


def read_place(text: str) -> Sides | None:
    """The sides of a named place, or None if it is none of ALLOWED.

    The order of words, upper case, hyphens and words such as "of the picture" do not matter.
    """
    words = _words(text)
    rest = [word for word in words if word not in (*_ACROSS, *_DOWN, "centre")]
    across = [word for word in words if word in _ACROSS]
    down = [word for word in words if word in _DOWN]
    centred = words.count("centre")
    length = " ".join(rest)
    if len(across) > 1 or len(down) > 1 or centred > 1:
        return None
    if words == ["whole"]:
        return 0.0, 0.0, 1.0, 1.0
    if across and down and not centred:
        span = _CORNER_LENGTHS.get(length)
        return None if span is None else _sides(_from(across[0], span), _from(down[0], span))
    if centred:
        return _central(across, down, length)
    span = _LENGTHS.get(length)
    if span is None or not (across or down):
        return None
    return _sides(_from(across[0], span), _WHOLE) if across else _sides(_WHOLE, _from(down[0], span))


def _words(text: str) -> list[str]:
    text = text.lower()
    if re.search("[\u4e00-\u9fff]", text):
        for chinese, english in _CHINESE.items():
            text = text.replace(chinese, f" {english} ")
        text = _CHINESE_FILLERS.sub(" ", text)
    found = [_SYNONYMS.get(word, word) for word in re.split(r"[\s\-_]+", text) if word]
    return [word for word in found if word not in _FILLERS] or [word for word in found if word == "whole"]


def _central(across: list[str], down: list[str], length: str) -> Sides | None:
    """Places with the word centre: the middle of an axis, as wide as half of it."""
    if across and not down:
        span = _LENGTHS.get(length)
        return None if span is None else _sides(_from(across[0], span), _MIDDLE)
    if down and not across:
        span = _LENGTHS.get(length)
        return None if span is None else _sides(_MIDDLE, _from(down[0], span))
    if across or down:
        return None
    whole = {
        "": (_MIDDLE, _MIDDLE),
        "half": (_MIDDLE, _MIDDLE),
        "third": (_MIDDLE_THIRD, _MIDDLE_THIRD),
        "column": (_MIDDLE_THIRD, _WHOLE),
        "row": (_WHOLE, _MIDDLE_THIRD),
    }.get(length)
    return whole and _sides(*whole)


def _from(side: str, length: float) -> tuple[float, float]:
    """The part of an axis that begins at one of its sides."""
    return (0.0, length) if side in ("left", "top") else (1 - length, 1.0)


def _sides(across: tuple[float, float], down: tuple[float, float]) -> Sides:
    return across[0], down[0], across[1], down[1]
