"""Words that the user names instead of leaving the choice to the parser."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .subjects import Role

_NUMBERED = re.compile(r"(.+)#(\d+)", re.DOTALL)
_ROLES: tuple[Role, ...] = ("subject", "scene")


@dataclass(frozen=True)
class Name:
    """One entry of the override: the words, the role they get, and which occurrence is meant (None: every one)."""

    words: str
    role: Role
    occurrence: int | None

    def find(self, text: str) -> list[tuple[int, int]]:
        """Return [start, end) of the occurrences meant, as whole words, whatever their case and spacing.

        Raises ValueError when the words are in the text, but not that often.
        """
        pattern = r"\s+".join(re.escape(word) for word in self.words.split())
        found = [match.span() for match in re.finditer(rf"(?<!\w){pattern}(?!\w)", text, re.IGNORECASE)]
        if self.occurrence is None or not found:
            return found
        if not 1 <= self.occurrence <= len(found):
            raise ValueError(
                f"override: there is no '{self.words}#{self.occurrence}'; the prompt has '{self.words}' {len(found)} "
                f"time(s). Use a number from 1 to {len(found)}, or no number for all of them."
            )
        return [found[self.occurrence - 1]]


def read_override(override: str) -> tuple[Name, ...]:
    """Return the entries of an override, "dog, red car#2, scene: beach".

    Entries are separated by commas or line breaks; "scene:" or "subject:" in front gives the role (subject when
    missing), "#2" behind the second occurrence.
    """
    names = []
    for part in re.split(r"[,\n]", override):
        words, role = part.strip(), _ROLES[0]
        for prefix in _ROLES:
            if words.lower().startswith(f"{prefix}:"):
                words, role = words[len(prefix) + 1 :].strip(), prefix
        numbered = _NUMBERED.fullmatch(words)
        if numbered:
            names.append(Name(numbered[1].strip(), role, int(numbered[2])))
        elif words:
            names.append(Name(words, role, None))
    return tuple(names)
