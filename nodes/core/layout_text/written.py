"""A box as it is written: its words, and the numbers or the name of its place, before they are understood."""

from __future__ import annotations

from dataclasses import dataclass

from .literals import Literal

Span = tuple[int, int]

LEFT, TOP, RIGHT, BOTTOM, WIDTH, HEIGHT = "left", "top", "right", "bottom", "width", "height"
SIZES = LEFT, TOP, WIDTH, HEIGHT
CORNERS = LEFT, TOP, RIGHT, BOTTOM
_QUOTED = 160  # characters


@dataclass(frozen=True)
class WrittenBox:
    """A box in a text.

    words, words_span: what belongs into it, and where that stands. span: where the whole entry stands. quoted: whether
    the words stand in quotes. numbers: its numbers, none if it has a named place instead. names: what each number is,
    one of the six names of this module, where the text says it. key: the name that the list of numbers has, in small
    letters without underscores; empty if it has none. place: the named place.
    """

    words: str
    words_span: Span
    span: Span
    quoted: bool
    numbers: tuple[Literal, ...] = ()
    names: tuple[str, ...] = ()
    key: str = ""
    place: Literal | None = None


def mistake(text: str, span: Span, what: str) -> ValueError:
    """The error that quotes the line of a part of the text and says what is wrong with it."""
    start, end = span
    quoted = " ".join(text[start:end].split())
    if len(quoted) > _QUOTED:
        quoted = f"{quoted[:_QUOTED]}…"
    return ValueError(f"Line {text.count(chr(10), 0, start) + 1} of the layout, '{quoted}': {what}")


def line_at(text: str, at: int) -> Span:
    """The line of the text in which a place stands, without spaces at its ends; for an empty line the one before."""
    before = text[: at + 1].rstrip()
    start = before.rfind("\n") + 1
    end = text.find("\n", len(before))
    return start, end if end >= 0 else len(text)
