"""The words of a prompt as the browser shows them on the node, as chips: a click on one names it in `override`."""

from __future__ import annotations

import re
from typing import Any

from .named_words import NamedWords
from .parsing import spaced_text
from .prompt_text import plain_text
from .subjects import Subjects

Span = tuple[int, int]  # [start, end)
MOST_WORDS = 400
_WORD = re.compile(r"embedding:[^\s,<\[]+|\w+(?:['’-]\w+)*")


def chips(subjects: Subjects, found: Subjects) -> list[dict[str, Any]]:
    """Return the prompt's words in order, each phrase of `subjects` and `found` as one.

    subjects: with the named words; found: what the parser finds without them. A chip has its `text`, its `role` in
    `found` ("subject", "scene" or ""), and which occurrence it is: number `nth` of `count`, counted from 1 as
    `NamedWords` does. After the first MOST_WORDS, words that are in no phrase are left out.
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
    """Whether an entry of `override` can name it: commas end an entry, # counts."""
    return not {",", "#"} & {*phrase}


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _occurrence(text: str, start: int, end: int) -> dict[str, Any]:
    phrase = " ".join(text[start:end].split())
    places = NamedWords(phrase, "subject", None).find(text)
    # "so so" in "so so so" is found once: places do not overlap.
    nth = next((i for i, place in enumerate(places, 1) if _overlap(place, (start, end))), 1)
    return {"text": phrase, "nth": nth, "count": len(places)}
