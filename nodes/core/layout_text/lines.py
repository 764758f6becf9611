"""Entries such as `dog: left half; ball: 0.6, 0.7, 0.2, 0.2`: words, a colon, and numbers or a named place."""

from __future__ import annotations

import re

from .literals import NUMBER, Literal
from .places import ALLOWED
from .written import WrittenBox, mistake

FORMS = (
    "write words, a colon and a place, such as 'dog: left half', or x, y, width and height, such as "
    "'ball: 0.6, 0.7, 0.2, 0.2'"
)

_ENTRY = re.compile(r"[^;；\n]+")
_FENCE = re.compile(r"\s*```")
_BULLET = re.compile(r"\s*(?:[-*•]\s+|[0-9]+[.)]\s+)")
_AROUND_WORDS = " \t\r\"'“”‘’*`"
_BETWEEN = re.compile(r"[\s,，、]*")
_BRACKETS = re.compile(r"^\s*[\[(]?(.*?)[\])]?[\s.。,，]*$", re.DOTALL)


def read_lines(text: str, start: int = 0) -> list[WrittenBox]:
    """The entries of a text from `start` on: one in each line, or several that semicolons separate.

    Empty ones, the marks of lists and the fences of code blocks do not count. Raises ValueError for an entry without
    a colon, without words or without a place.
    """
    found = []
    for entry in _ENTRY.finditer(text, start):
        if entry[0].strip() and not _FENCE.match(entry[0]):
            found.append(_read_entry(text, *entry.span()))
    return found


def read_place_text(text: str, start: int, end: int) -> tuple[tuple[Literal, ...], Literal | None]:
    """The numbers that stand between two places of the text, or, if it has no digit at first, the text of a place."""
    inner = _BRACKETS.match(text[start:end])
    first, last = start + inner.start(1), start + inner.end(1)
    while last > first and text[last - 1].isspace():
        last -= 1
    if not NUMBER.match(text, first):
        return (), Literal(text[first:last], first, last)
    numbers, at = [], first
    while at < last:
        number = NUMBER.match(text, at, last)
        if not number:
            raise mistake(text, (start, end), f"'{text[at:last]}' is no number: {FORMS}")
        percent = text[number.end() : number.end() + 1] == "%"
        numbers.append(Literal(float(number[0]), *number.span(), percent=percent))
        at = number.end() + percent
        between = _BETWEEN.match(text, at, last)
        if at < last and not between[0]:
            raise mistake(text, (start, end), f"'{text[at:last]}' is no number: {FORMS}")
        at = between.end()
    return tuple(numbers), None


def _read_entry(text: str, start: int, end: int) -> WrittenBox:
    if bullet := _BULLET.match(text, start, end):
        start = bullet.end()
    start += len(text[start:end]) - len(text[start:end].lstrip())
    end -= len(text[start:end]) - len(text[start:end].rstrip())
    colon = max(text.rfind(mark, start, end) for mark in ":：")
    if colon < 0:
        raise mistake(text, (start, end), f"it has no colon: {FORMS}")
    words = text[start:colon].strip(_AROUND_WORDS)
    if not words:
        raise mistake(text, (start, end), f"it has no words before the colon: {FORMS}")
    if not text[colon + 1 : end].strip(_AROUND_WORDS):
        raise mistake(text, (start, end), f"nothing follows the colon: {FORMS}. Named places are {ALLOWED}")
    at = text.index(words, start)
    numbers, place = read_place_text(text, colon + 1, end)
    return WrittenBox(words, (at, at + len(words)), (start, end), False, numbers, place=place)
