"""The lists, objects, texts and numbers of JSON and Python in a text, each with the place where it stands.

Language models mix both: single quotes, tuples, commas at the end. Nothing is evaluated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MOST_DEPTH = 20

# Where a list or an object of more than plain numbers may begin; prose has brackets, too.
_START = re.compile(
    r"""\[(?=\s*["'“\[{(]) | \{(?=\s*(?:["'“]|[A-Za-z_]\w*\s*:)) | \((?=\s*(?:"[^"\n]*"|'[^'\n]*')\s*,\s*[\[({])""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_STRINGS = {
    '"': re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL),
    "'": re.compile(r"'([^'\\]*(?:\\.[^'\\]*)*)'", re.DOTALL),
    "“": re.compile(r"“([^”\\]*(?:\\.[^”\\]*)*)”", re.DOTALL),
}
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAME = re.compile(r"[A-Za-z_]\w*")
_CLOSING = {"[": "]", "(": ")", "{": "}"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class LiteralError(ValueError):
    """What is wrong, and `at`, where in the text."""

    def __init__(self, what: str, at: int) -> None:
        super().__init__(what)
        self.at = at


@dataclass(frozen=True)
class Literal:
    """A value that stands from `start` to `end` in the text: of a text without its quotes, of all else as a whole.

    value: a text; a number; the values of a list; keys and values of an object, by the key's text; None for any other
    word, such as true. percent: of a number, whether a percent sign follows, which is not part of its place.
    """

    value: str | float | list[Literal] | dict[str, tuple[Literal, Literal]] | None
    start: int
    end: int
    percent: bool = False


def find_literals(text: str, start: int = 0) -> list[Literal]:
    """Every list and object of `text`, from `start` on, that is in no other, but for lists of numbers alone.

    Raises LiteralError for one that is not complete.
    """
    found: list[Literal] = []
    first = _START.search(text, start)
    while first:
        found.append(_read(text, first.start(), 0))
        first = _START.search(text, found[-1].end)
    return found


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _read(text: str, at: int, depth: int) -> Literal:
    """The value that begins at `at`."""
    first = text[at : at + 1]
    if depth > MOST_DEPTH:
        raise LiteralError(f"lists may be {MOST_DEPTH} deep in each other at most", at)
    if first in _STRINGS:
        found = _STRINGS[first].match(text, at)
        if not found:
            raise LiteralError(f"this text has no closing {'”' if first == '“' else first}", at)
        return Literal(_unescaped(found[1]), *found.span(1))
    if first in _CLOSING:
        return _read_object(text, at, depth) if first == "{" else _read_list(text, at, depth)
    if found := NUMBER.match(text, at):
        return Literal(float(found[0]), *found.span(), percent=text[found.end() : found.end() + 1] == "%")
    if found := _NAME.match(text, at):
        return Literal(None, *found.span())
    raise LiteralError("a list, an object, a number or a text in quotes is needed here", at)


def _read_list(text: str, at: int, depth: int) -> Literal:
    values: list[Literal] = []
    start, closing = at, _CLOSING[text[at]]
    at = _skip(text, at + 1)
    while not text.startswith(closing, at):
        values.append(_read(text, at, depth + 1))
        at = _next(text, values[-1], closing)
    return Literal(values, start, at + 1)


def _read_object(text: str, at: int, depth: int) -> Literal:
    pairs: dict[str, tuple[Literal, Literal]] = {}
    start = at
    at = _skip(text, at + 1)
    while not text.startswith("}", at):
        key = _read(text, at, depth + 1)
        name = text[key.start : key.end] if key.value is None else key.value
        if not isinstance(name, str):
            raise LiteralError("a name in quotes is needed here", at)
        if name in pairs:
            raise LiteralError(f"the name '{name}' is there twice: a list of pairs may repeat words", at)
        colon = _skip(text, _after(text, key))
        if not text.startswith(":", colon):
            raise LiteralError(f"after '{name}' a colon is needed", colon)
        value = _read(text, _skip(text, colon + 1), depth + 1)
        pairs[name] = key, value
        at = _next(text, value, "}")
    return Literal(pairs, start, at + 1)


def _after(text: str, read: Literal) -> int:
    """Where the text goes on behind a value: behind its closing quote or percent sign, if it has one."""
    return read.end + (isinstance(read.value, str) or read.percent)


def _next(text: str, read: Literal, closing: str) -> int:
    """Where the next value begins, or the closing bracket stands."""
    at = _skip(text, _after(text, read))
    if text.startswith(",", at):
        return _skip(text, at + 1)
    if not text.startswith(closing, at):
        raise LiteralError(f"a comma or {closing} is needed here", at)
    return at


def _unescaped(text: str) -> str:
    def character(found: re.Match[str]) -> str:
        code = found[1]
        return chr(int(code[1:], 16)) if len(code) == 5 else _ESCAPED.get(code, code)

    # characters beyond the first 65536 are escaped as two
    return _ESCAPE.sub(character, text).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
