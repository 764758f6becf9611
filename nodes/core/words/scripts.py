"""Scripts that put no spaces between words: Chinese, Japanese, Thai, Lao, Khmer and Burmese."""

from __future__ import annotations

import re

# Ranges of characters, as they stand inside [...] of a regular expression.
KANA = "\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\uff66-\uff9f"
HAN = "\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
UNSPACED = KANA + HAN + "\u0e01-\u0eff\u1000-\u109f\u1780-\u17ff"

# What must not stand before or after a word of a script with spaces: another of its letters.
NOT_AFTER_LETTER = rf"(?<![^\W{UNSPACED}])"
NOT_BEFORE_LETTER = rf"(?![^\W{UNSPACED}])"

_UNSPACED = re.compile(f"[{UNSPACED}]")
_RUN = re.compile(f"[{UNSPACED}]+")


def is_unspaced(character: str) -> bool:
    """Return whether a character belongs to a script that puts no spaces between words."""
    return _UNSPACED.match(character) is not None


def unspaced_runs(text: str) -> list[tuple[int, int]]:
    """Return [start, end) of every stretch of text in such a script."""
    return [match.span() for match in _RUN.finditer(text)]


def language_of(text: str) -> str:
    """Return which language the unspaced script of a text is read as: "Japanese" where it has kana, else "Chinese".

    "" where it is another script, whose words nothing here can tell apart.
    """
    if re.search(f"[{KANA}]", text):
        return "Japanese"
    return "Chinese" if re.search(f"[{HAN}]", text) else ""
