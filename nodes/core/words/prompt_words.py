"""The words of a prompt: where they stand, and each as a subject with its tokens, whether it has a role or not."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence

from .chinese_japanese import segment
from .named_words import occurrence
from .prompt_text import PlainText, plain_text
from .scripts import is_unspaced, unspaced_runs
from .subjects import OTHER, Role, Subject, Subjects
from .tokens import TokenSpan, context_of, positions_in

# So many words of a prompt without a role are listed, or read where all are wanted.
MOST_WORDS = 400

Span = tuple[int, int]  # [start, end)

_WORD = re.compile(r"embedding:[^\s,<\[]+|\w+(?:['’-]\w+)*")
_SPACES = re.compile(r"\s+")


def spaced_text(plain: PlainText) -> tuple[str, list[int]]:
    """Return the text with a space where a weight ends inside a run of letters, which the host reads as two words.

    The second result is the index in `plain.text` of each of its characters.
    """
    origin: list[int] = []
    characters: list[str] = []
    for i, character in enumerate(plain.text):
        if i in plain.borders and character.isalnum() and characters and characters[-1].isalnum():
            characters.append(" ")
            origin.append(i)
        characters.append(character)
        origin.append(i)
    return "".join(characters), origin


def words_in(text: str) -> list[Span]:
    """Return [start, end) of a text's words; of a script without spaces between words, those that a library finds."""
    runs = unspaced_runs(text)
    spaced = text
    for start, end in runs:
        spaced = spaced[:start] + " " * (end - start) + spaced[end:]
    cut = (segment(text) if runs else None) or ()
    return sorted(
        [
            *(match.span() for match in _WORD.finditer(spaced)),
            *((word.start, word.end) for word in cut if is_unspaced(text[word.start])),
        ]
    )


def subject_at(
    plain: PlainText,
    spaced: tuple[str, Sequence[int]],
    span: Span,
    role: Role,
    tokens: Mapping[str, Sequence[TokenSpan]],
) -> Subject:
    """Return the words at `span` of the plain text, with their number if the prompt has them several times.

    spaced: what `spaced_text` returns for it. tokens: see `parse`.
    """
    (start, end), (text, origin) = span, spaced
    typed = plain.span(start, end)
    nth, count = occurrence(text, bisect_right(origin, start) - 1, bisect_right(origin, end - 1))
    positions, context = positions_in(typed, tokens), context_of(tokens)
    rows, number = context and context.of(positions), nth if count > 1 else 0
    return Subject(_SPACES.sub(" ", plain.text[start:end]), role, typed, positions, rows, number)


def other_words(subjects: Subjects) -> tuple[Subject, ...]:
    """Return the words of the prompt that are no subjects and have tokens, in order, at most MOST_WORDS."""
    plain = plain_text(subjects.prompt)
    text, origin = spaced_text(plain)
    spans = [(origin[start], origin[end - 1] + 1) for start, end in words_in(text)]
    taken = [item.span for item in subjects.items]

    def is_free(span: Span) -> bool:
        start, end = plain.span(*span)
        return all(end <= first or last <= start for first, last in taken)

    free = [span for span in spans if is_free(span)][:MOST_WORDS]
    words = (subject_at(plain, (text, origin), span, OTHER, subjects.prompt_tokens) for span in free)
    return tuple(word for word in words if (any(word.tokens.values()) if word.rows is None else word.rows))
