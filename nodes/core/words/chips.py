"""The words of a prompt as the browser shows them on the node, as chips: a click on one names it in `override`."""

from __future__ import annotations

from typing import Any

from .named_words import occurrence
from .prompt_text import plain_text
from .prompt_words import MOST_WORDS, spaced_text, words_in
from .scripts import is_unspaced
from .subjects import Subjects

Span = tuple[int, int]  # [start, end)


def chips(subjects: Subjects, found: Subjects, mentioned: Subjects | None = None) -> list[dict[str, Any]]:
    """Return the prompt's words in order, each phrase of the three as one.

    subjects: with the named words; found: what the parser finds without them; mentioned: all things that it finds.
    A chip has its `text`, its `role` in `found` ("subject", "scene" or ""), which occurrence it is: number `nth` of
    `count`, counted from 1 as `NamedWords` does, and whether it is `left_out`: a thing that is mentioned, but not
    found. After the first MOST_WORDS, words that are in no phrase are left out.
    """
    plain = plain_text(subjects.prompt)
    text, typed = spaced_text(plain)
    words = words_in(text)
    places = [plain.where[at] for at in typed]
    where = {word: (places[word[0]][0], places[word[1] - 1][1]) for word in words}
    roles = {item.span: item.role for item in found.items}
    phrases: dict[Span, str] = {}
    left_out = set()
    for item in (*subjects.items, *found.items, *(mentioned.items if mentioned else ())):
        inside = [word for word in words if item.span[0] <= where[word][0] and where[word][1] <= item.span[1]]
        inside = inside or _part_of_word(text, places, item.span)
        if inside:
            first = inside[0] if _nameable(text[inside[0][0] : inside[-1][1]]) else inside[-1]
            span = first[0], inside[-1][1]
            if not any(_overlap(span, other) for other in phrases if other != span):
                phrases.setdefault(span, roles.get(item.span, ""))
                if item.span not in roles and mentioned and item in mentioned.items:
                    left_out.add(span)
    free = [word for word in words if not any(_overlap(word, phrase) for phrase in phrases)]
    listed = sorted([*phrases, *free[:MOST_WORDS]])
    return [
        {**_occurrence(text, *span), "role": phrases.get(span, ""), "left_out": span in left_out} for span in listed
    ]


def _part_of_word(text: str, places: list[Span], span: Span) -> list[Span]:
    """Return where a phrase is that is less than a word, in a script without spaces; [] in another script."""
    inside = [i for i, (start, end) in enumerate(places) if span[0] <= start and end <= span[1]]
    return [(inside[0], inside[-1] + 1)] if inside and is_unspaced(text[inside[0]]) else []


def _nameable(phrase: str) -> bool:
    """Whether an entry of `override` can name it: commas end an entry, # counts."""
    return not {*",，、#"} & {*phrase}


def _overlap(one: Span, other: Span) -> bool:
    return one[0] < other[1] and other[0] < one[1]


def _occurrence(text: str, start: int, end: int) -> dict[str, Any]:
    nth, count = occurrence(text, start, end)
    return {"text": " ".join(text[start:end].split()), "nth": nth, "count": count}
