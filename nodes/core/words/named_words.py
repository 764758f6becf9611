"""Named words: the words that the user names in the input `override` instead of leaving the choice to the parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .subjects import Role

_NUMBERED = re.compile(r"(.+)#(\d+)", re.DOTALL)
_ROLES: tuple[Role, ...] = ("subject", "scene")


@dataclass(frozen=True)
class NamedWords:
    """One entry: a word or phrase, the role it gets, and which occurrence is meant (None: every one).

    source: the input that the user typed it into, for messages.
    """

    words: str
    role: Role
    occurrence: int | None
    source: str = "override"

    def find(self, text: str) -> list[tuple[int, int]]:
        """Return [start, end) in `text` of the occurrences meant, as whole words, whatever their case and spacing.

        Raises ValueError when the words are in the text, but not that often.
        """
        pattern = r"\s+".join(re.escape(word) for word in self.words.split())
        found = [match.span() for match in re.finditer(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)]
        if self.occurrence is None or not found:
            return found
        if not 1 <= self.occurrence <= len(found):
            raise ValueError(
                f"{self.source}: there is no '{self.words}#{self.occurrence}'; the prompt has '{self.words}' "
                f"{len(found)} time(s). Use a number from 1 to {len(found)}, or no number for all of them."
            )
        return [found[self.occurrence - 1]]


def read_named_words(text: str) -> tuple[NamedWords, ...]:
    """Return the entries of what the user typed, such as "dog, red car#2, scene: beach".

    Entries are separated by commas or line breaks. "scene:" or "subject:" before an entry says its role (subject if
    missing), "#2" after it means the second occurrence.
    """
    named = []
    for part in re.split(r"[,\n]", text):
        words, role = part.strip(), _ROLES[0]
        for prefix in _ROLES:
            if words.lower().startswith(f"{prefix}:"):
                words, role = words[len(prefix) + 1 :].strip(), prefix
        if words:
            named.append(one_entry(words, role))
    return tuple(named)


def one_entry(words: str, role: Role, source: str = "override") -> NamedWords:
    """Return a word or phrase with this role, and the occurrence that "#2" after it means. source: see `NamedWords`."""
    numbered = _NUMBERED.fullmatch(words)
    if numbered is None:
        return NamedWords(words, role, None, source)
    return NamedWords(numbered[1].strip(), role, int(numbered[2]), source)
