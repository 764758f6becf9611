"""The words of a prompt as the browser's chips show them: each can be named in the override."""

from __future__ import annotations

import re
from typing import Any

from .named_words import Name
from .parsing import spaced_text
from .prompt_text import plain_text
from .subjects import Subjects

Span = tuple[int, int]  # [start, end)
MOST_WORDS = 400
_WORD = re.compile(r"embedding:[^\s,<\[]+|\w+(?:['’-]\w+)*")


def chips(subjects: Subjects, found: Subjects) -> list[dict[str, Any]]:
    """The prompt's words in order, phrases of `subjects` and `found` as one.

    subjects: with the override; found: what the parser finds without it. Each has its `text`, its `role` in `found`
    ("subject", "scene" or ""), and its occurrence: number `nth` of `count`, as `override.Name` counts them. Words that
    are in no phrase are left out after the first MOST_WORDS.
    """
    plain = plain_text(subjects.prompt)
    text, typed = spaced_text(plain)
    words = [match.span() for match in _WORD.finditer(text)]
    where = {word: plain.span(typed[word[0]], typed[word[1] - 1] + 1) for word in words}
    roles = {item.span: item.role for item in found.items}
    phrases: dict[Span, str] = {}
    for item in (*subjects.items, *found.items):
        inside = [word for word in words if item.span[0] <= where[word][0] and where[word][1] <= item.span[1]]
        if inside:
            first = inside[0] if _nameable(text[inside[0][0] : inside[-1][1]]) else inside[-1]
            span = first[0], inside[-1][1]
            if not any(_overlap(span, other) for other in phrases if other != span):
                phrases.setdefault(span, roles.get(item.span, ""))
    free = [word for word in words if not any(_overlap(word, phrase) for phrase in phrases)]
    listed = sorted([*phrases, *free[:MOST_WORDS]])
    return [{**_occurrence(text, *span), "role": phrases.get(span, "")} for span in listed]


def _nameable(phrase: str) -> bool:
    """Whether an override can name it: commas end an entry, # counts."""
    return not {",", "#"} & {*phrase}


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _occurrence(text: str, start: int, end: int) -> dict[str, Any]:
    phrase = " ".join(text[start:end].split())
    places = Name(phrase, "subject", None).find(text)
    # "so so" in "so so so" is found once: places do not overlap.
    nth = next((i for i, place in enumerate(places, 1) if _overlap(place, (start, end))), 1)
    return {"text": phrase, "nth": nth, "count": len(places)}
