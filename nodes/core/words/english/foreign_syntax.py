"""Prompt syntax of other programs, which ComfyUI itself does not interpret, and the text without it.

LoRA tags, BREAK and AND, prompt editing ``[from:to:0.5]``, alternatives ``{a|b}``, wildcards ``__name__``, options
``--ar 3:2`` and weights ``::2`` reach ComfyUI's text encoder as plain words. They are taken out only for finding the
subjects: token positions always come from the prompt as typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NUMBER = r"(?<![\d.])-?(?:\d+(?:\.\d+)?|\.\d+)"
_NETWORK = re.compile(r"<\w+:[^<>]*>")  # <lora:detail:1>
_WILDCARD = re.compile(r"__[\w/*-]+?__")  # __animal__
_OPTIONS = re.compile(r"(?<!\S)--[a-z][^\n]*", re.IGNORECASE)  # --ar 3:2
_SETTINGS = re.compile(r"(?<!\w)(?:negative prompt|steps):.*", re.IGNORECASE | re.DOTALL)  # Negative prompt: blurry
_COMMAND = re.compile(r"^\s*/imagine\s+(?:prompt:)?", re.IGNORECASE)  # /imagine prompt:
_BREAK = re.compile(r"(?<!\w)BREAK(?!\w)")
_AND = re.compile(r"(?<!\w)AND(?!\w)")
# a dog::2 a cat :0.7
_PART_WEIGHT = re.compile(rf"::\s*{_NUMBER}|(?<=\s):{_NUMBER}(?=\s|$)|(?<=[^\W\d]):{_NUMBER}(?=\s*(?:,|$))")
_EMPHASIS = re.compile(r"(?<=\w)\++(?=[\s,.]|$)")  # dog++
_CHOICE_WEIGHT = re.compile(rf"{_NUMBER}\s*::")  # the 2:: of {2::a|b}
_EDIT = re.compile(rf"\[([^\[\]{{}}:|]*):(?:([^\[\]{{}}:|]*):|:)?\s*{_NUMBER}\s*\]")  # [a bear:a wolf:0.5]
_BRACKETS = re.compile(r"\{[^{}]*\}|\[[^\[\]]*\]")  # {a|b}
_TAG_FIELD = re.compile(r"(?<!\w)(?:artist|rating|source|score|copyright|meta)(?::|_)\w+", re.IGNORECASE)  # rating:safe
# Subject: a dog
_HEADING = re.compile(
    r"(?:(?<=[.,;\n])|^)[ \t]{0,8}(?:subject|setting|scene|style|medium|mood|lighting|camera|composition|"
    r"(?:positive )?prompt)\s*:(?=\s)",
    re.IGNORECASE,
)
_BAR = re.compile(r"\||(?<=\s)[–—](?=\s)")  # a | b
_FACE = re.compile(r"(?:(?<=,)|^)[ \t]{0,8}[:;=^>][\w)(^_<]{1,3}[ \t]{0,8}(?=,|$)")  # :d
_CLOSE_COMMA = re.compile(r",(?=[^\W\d]|\d+\w*[^\W\d])")  # red hair,4k

# The word that stands in the text for an embedding: a made-up name of equal length.
EMBEDDING_WORD = re.compile(r"Ex{9,}")
# The word that stands in the text for a wildcard, which may be anything.
WILDCARD_WORD = "Xwildcardx"


@dataclass(frozen=True)
class CleanedText:
    """A text without foreign syntax.

    origin: for each character of `text` the index of the character it came from. foreign: what was taken out although
    ComfyUI's text encoder reads it as words; as typed, in order, each once.
    """

    text: str
    origin: tuple[int, ...]
    foreign: tuple[str, ...]


def remove_foreign_syntax(text: str) -> CleanedText:
    """Take foreign syntax out of a text and leave in what it stands for.

    Alternatives and prompt editing become "a and b", BREAK a full stop, AND "and", options after ``--`` and networks
    spaces, weights of parts commas, wildcards `WILDCARD_WORD`; a comma without a space after it gets one.
    """
    foreign: list[tuple[int, str]] = []
    characters, origin = list(text), list(range(len(text)))

    def replace(start: int, end: int, by: str) -> None:
        """Replace characters by `by`, whose origin is the first of them."""
        characters[start:end] = by
        origin[start:end] = [origin[start]] * len(by)

    def apply(pattern: re.Pattern[str], by: str, reported: bool = True) -> None:
        """Replace all matches, the last one first. reported: tell the user that ComfyUI does not interpret them."""
        for match in reversed(list(pattern.finditer("".join(characters)))):
            if reported:
                foreign.append((origin[match.start()], match[0].strip()))
            replace(*match.span(), by)

    for pattern in (_COMMAND, _SETTINGS, _OPTIONS, _NETWORK, _EMPHASIS):
        apply(pattern, " ")
    apply(_WILDCARD, WILDCARD_WORD)
    for pattern, marks in ((_EDIT, _edit_marks), (_BRACKETS, _choice_marks)):
        for match in reversed(list(pattern.finditer("".join(characters)))):
            found = list(marks(match))
            if found:
                foreign.append((origin[match.start()], match[0]))
            for start, end, by in reversed(found):
                replace(start, end, by)
    apply(_PART_WEIGHT, ", ")
    apply(_CHOICE_WEIGHT, " ")
    apply(_BREAK, " . ")
    if not text.isupper():
        apply(_AND, " and ")
    for pattern, by in ((_TAG_FIELD, " "), (_HEADING, " "), (_FACE, " "), (_BAR, ", "), (_CLOSE_COMMA, ", ")):
        apply(pattern, by, reported=False)
    return CleanedText("".join(characters), tuple(origin), tuple(dict.fromkeys(typed for _, typed in sorted(foreign))))


def _edit_marks(match: re.Match[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, replacement) for the marks of ``[from:to:0.5]``, ``[to:0.5]`` and ``[from::0.5]``."""
    yield match.start(), match.start() + 1, " "
    second = match[2] is not None
    if second:
        yield match.end(1), match.end(1) + 1, " and " if match[1].strip() and match[2].strip() else " "
    yield match.end(2) if second else match.end(1), match.end(), " "


def _choice_marks(match: re.Match[str]) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, replacement) for the marks of ``{a|b}`` and ``[a|b]``."""
    bars = [bar.start() for bar in re.finditer(r"\|", match[0])]
    if bars:
        yield match.start(), match.start() + 1, " "
        yield from ((match.start() + bar, match.start() + bar + 1, " and ") for bar in bars)
        yield match.end() - 1, match.end(), " "
