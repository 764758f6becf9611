"""A prompt's subjects with their token positions: the language part, the override and the alignment put together."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from .alignment import TokenSpan, positions_of, token_list
from .prompt_text import PlainText, plain_text
from .subjects import Role, Subject, Subjects

_SCENE = re.compile(r"\b(?:on|in|at|under|near|inside|across|over|by|beside|behind)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


def parse(prompt: str, tokens: Mapping[str, Sequence[TokenSpan]], override: str = "") -> Subjects:
    """Return the subject and scene words of a prompt with their positions in every encoder.

    tokens: encoder key -> tokens of the prompt. override: words that the user names, separated by commas; they replace
    the subjects found. Raises ValueError for a word that is not in the prompt.
    """
    plain = plain_text(prompt)
    found = _named(plain, override, tokens) if override.strip() else _subject_on_scene(plain)
    items = tuple(
        Subject(
            plain.text[start:end],
            role,
            plain.span(start, end),
            {key: positions_of(plain.span(start, end), spans) for key, spans in tokens.items()},
        )
        for start, end, role in found
    )
    return Subjects(prompt, items, "rules")


def table(subjects: Subjects) -> str:
    """Return the preview text: parser, then word, role and token positions per encoder, one subject a line."""
    rows = [
        f"{item.text} | {item.role} | "
        + " ".join(f"{key}: {', '.join(map(str, found)) or '-'}" for key, found in item.tokens.items())
        for item in subjects.items
    ]
    return "\n".join([f"parser: {subjects.parser}", "word | role | token positions", *(rows or ["(no subject found)"])])


def _subject_on_scene(plain: PlainText) -> list[tuple[int, int, Role]]:
    """Return the last word before the last scene preposition as subject, the last word after it as scene."""
    words = list(_WORD.finditer(plain.text))
    places = [word.start() for word in words if _SCENE.fullmatch(word.group())]
    border = places[-1] if places else len(plain.text)
    before = [word.span() for word in words if word.start() < border]
    after = [word.span() for word in words if word.start() > border]
    found: list[tuple[int, int, Role]] = []
    if before:
        found.append((*before[-1], "subject"))
    if after:
        found.append((*after[-1], "scene"))
    return found


def _named(plain: PlainText, override: str, tokens: Mapping[str, Sequence[TokenSpan]]) -> list[tuple[int, int, Role]]:
    found: list[tuple[int, int, Role]] = []
    for name in filter(None, (part.strip() for part in override.split(","))):
        matches = re.finditer(rf"(?<!\w){re.escape(name)}(?!\w)", plain.text, re.IGNORECASE)
        spans: list[tuple[int, int, Role]] = [(*match.span(), "subject") for match in matches]
        if not spans:
            lists = "; ".join(f"{key}: {token_list(plain.text, spans)}" for key, spans in tokens.items())
            raise ValueError(f"override: '{name}' is not in the prompt. Its tokens are {lists}")
        found += spans
    return sorted(found)
