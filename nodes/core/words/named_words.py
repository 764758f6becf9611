"""Named words: the words that the user names in the input `override` instead of leaving the choice to the parser."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from .scripts import NOT_AFTER_LETTER, NOT_BEFORE_LETTER, is_unspaced
from .subjects import Role

# What separates entries: line breaks, the comma of English, and those of Chinese and Japanese.
SEPARATORS = re.compile(r"[,\n，、]")

_NUMBERED = re.compile(r"(.+)#(\d+)", re.DOTALL)
_IF_PRESENT = re.compile(r"(.*\S)\s*\?", re.DOTALL)
_PREFIX = re.compile(r"(subject|scene|not)[:：]\s*", re.IGNORECASE)
_ROLES: dict[str, Role | None] = {"subject": "subject", "scene": "scene", "not": None}


@dataclass(frozen=True)
class NamedWords:
    """One entry: a word or phrase, the role it gets (None: neither), and which occurrence is meant (None: every one).

    if_present: the entry is left out where the prompt does not have it, instead of being a mistake. source: the input
    that the user typed it into, for messages.
    """

    words: str
    role: Role | None
    occurrence: int | None
    if_present: bool = False
    source: str = "override"

    @property
    def label(self) -> str:
        """The words, with their number if one is meant."""
        return self.words if self.occurrence is None else f"{self.words}#{self.occurrence}"

    def find(self, text: str) -> list[tuple[int, int]]:
        """Return [start, end) in `text` of the occurrences meant, whatever their case and spacing.

        They are whole words; in a script without spaces between words they may stand anywhere. Raises ValueError when
        the words are in the text, but not that often.
        """
        # A prompt may have the question mark itself.
        found = self.if_present and self.occurrence is None and _places(f"{self.words}?", text)
        found = list(found or _places(self.words, text))
        if self.occurrence is None or not found:
            return found
        if not 1 <= self.occurrence <= len(found):
            if self.if_present:
                return []
            raise ValueError(
                f"{self.source}: there is no '{self.words}#{self.occurrence}'; the prompt has '{self.words}' "
                f"{len(found)} time(s). Use a number from 1 to {len(found)}, or no number for all of them."
            )
        return [found[self.occurrence - 1]]


def read_named_words(text: str) -> tuple[NamedWords, ...]:
    """Return the entries of what the user typed, such as "dog, red car#2, scene: beach".

    Entries are separated by commas or line breaks. "scene:", "subject:" or "not:" before an entry says its role
    (subject if missing), "#2" after it means the second occurrence, "?" at its end that the prompt need not have it.
    """
    named = []
    for part in SEPARATORS.split(text):
        words, role = part.strip(), _ROLES["subject"]
        prefix = _PREFIX.match(words)
        if prefix:
            words, role = words[prefix.end() :].strip(), _ROLES[prefix[1].lower()]
        question = _IF_PRESENT.fullmatch(words)
        if question:
            words = question[1]
        if words:
            named.append(replace(one_entry(words, role), if_present=question is not None))
    return tuple(named)


def one_entry(words: str, role: Role | None, source: str = "override") -> NamedWords:
    """Return a word or phrase with this role, and the occurrence that "#2" after it means. source: see `NamedWords`."""
    numbered = _NUMBERED.fullmatch(words)
    if numbered is None:
        return NamedWords(words, role, None, source=source)
    return NamedWords(numbered[1].strip(), role, int(numbered[2]), source=source)


def occurrence(text: str, start: int, end: int) -> tuple[int, int]:
    """Return which occurrence of its words text[start:end] is, counted from 1, and how many there are."""
    places = NamedWords(" ".join(text[start:end].split()), None, None).find(text)
    # "so so" in "so so so" is found once: places do not overlap.
    overlapping = (i for i, place in enumerate(places, 1) if place[0] < end and start < place[1])
    return next(overlapping, 1), len(places)


@lru_cache(maxsize=32)  # a prompt that says a word a thousand times asks for its places as often
def _places(words: str, text: str) -> Sequence[tuple[int, int]]:
    """Return [start, end) of every occurrence of words in a text."""
    pattern = r"\s+".join(map(_spelled, words.split()))
    before = "" if is_unspaced(words[0]) else NOT_AFTER_LETTER
    after = "" if is_unspaced(words[-1]) else NOT_BEFORE_LETTER
    return tuple(match.span() for match in re.finditer(f"{before}{pattern}{after}", text, re.IGNORECASE))


def _spelled(word: str) -> str:
    """Return a pattern for a word. Between characters without spaces a weight may end: 红色的(狗:1.2)."""
    pattern = ""
    for previous, character in zip(f" {word}", word, strict=False):
        joint = r"\s*" if pattern and (is_unspaced(previous) or is_unspaced(character)) else ""
        pattern += joint + re.escape(character)
    return pattern
