"""Weights, parentheses and escapes of a prompt: the text without them, and where each character of it was typed.

The grammar is the host's: ``(text)`` multiplies the weight by 1.1, ``(text:1.3)`` sets it, ``\\(`` and ``\\)`` are
literal. It is rebuilt here because the host keeps no positions; `tokens` checks the result against what the host's own
tokenizer was given.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

# The host re-reads a nested text once per level and fails at its recursion limit after seconds; 1.1 ** 50 is 117.
MAX_DEPTH = 50
MAX_CHARACTERS = 10_000

# The host protects escaped parentheses with these while it reads the weights.
_CLOSE, _OPEN = "\0\1", "\0\2"


@dataclass(frozen=True)
class PlainText:
    """A prompt without weight syntax.

    where[i]: [start, end) in the prompt of text[i]. borders: indices into `text` at which the weight changes, where the
    host ends a word.
    """

    text: str
    where: tuple[tuple[int, int], ...]
    borders: frozenset[int]

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return [start, end) of the characters of the prompt that text[start:end] (not empty) came from."""
        return self.where[start][0], self.where[end - 1][1]


def check_prompt(prompt: str) -> None:
    """Raise ValueError for a prompt that the host could only read in minutes or not at all."""
    if len(prompt) > MAX_CHARACTERS:
        raise ValueError(
            f"The prompt has {len(prompt):,} characters; at most {MAX_CHARACTERS:,} (about 30 chunks of 77 tokens) are "
            "analysed. Shorten it."
        )
    broken = next((i for i, character in enumerate(prompt) if "\ud800" <= character <= "\udfff"), None)
    if broken is not None:
        raise ValueError(f"The prompt has half a character (a lone surrogate) at position {broken}; delete it.")


def plain_text(prompt: str, weights: bool = True) -> PlainText:
    """Return the prompt as its text encoders get it.

    weights: False for an encoder that the host gives none: parentheses are text there, only escapes are undone. Raises
    ValueError when parentheses that weigh are nested deeper than `MAX_DEPTH`.
    """
    escaped, where = _escape(prompt)
    characters: list[str] = []
    origin: list[tuple[int, int]] = []
    borders: set[int] = set()
    for start, end in _segments(escaped) if weights else [(0, len(escaped))]:
        borders.add(len(characters))
        i = start
        while i < end:
            pair = escaped[i : min(i + 2, end)]
            if pair in (_CLOSE, _OPEN):
                characters.append(")" if pair == _CLOSE else "(")
                origin.append((where[i][0], where[i + 1][1]))
                i += 2
            else:
                characters.append(escaped[i])
                origin.append(where[i])
                i += 1
    return PlainText("".join(characters), tuple(origin), frozenset(borders))


def _escape(prompt: str) -> tuple[str, list[tuple[int, int]]]:
    """Return the prompt with its escaped parentheses protected, and [start, end) in the prompt of each character."""
    characters: list[str] = []
    where: list[tuple[int, int]] = []
    i = 0
    while i < len(prompt):
        pair = prompt[i : i + 2]
        if pair in ("\\)", "\\("):
            characters += _CLOSE if pair == "\\)" else _OPEN
            where += [(i, i + 2), (i, i + 2)]
            i += 2
        else:
            characters.append(prompt[i])
            where.append((i, i + 1))
            i += 1
    return "".join(characters), where


def _segments(text: str) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of each stretch of text that has one weight, in order."""
    stack: list[tuple[int, int, int | None]] = [(0, len(text), 0)]  # the depth is None where no weight is left inside
    while stack:
        start, end, depth = stack.pop()
        if depth is None:
            yield start, end
            continue
        if depth > MAX_DEPTH:
            raise ValueError(
                f"Parentheses are nested deeper than {MAX_DEPTH}. Write the weight as a number, (dog:1.3), or escape "
                "parentheses that are text: \\( and \\)."
            )
        for item in reversed(list(_items(text, start, end))):
            content = _inside(text, *item)
            stack.append((*item, None) if content is None else (*content, depth + 1))


def _items(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield [start, end) of each (…) whose parentheses match, and of what lies between, not looking inside."""
    level, begin = 0, start
    for i in range(start, end):
        if text[i] == "(":
            if level == 0 and i > begin:
                yield begin, i
                begin = i
            level += 1
        elif text[i] == ")":
            level -= 1
            if level == 0:
                yield begin, i + 1
                begin = i + 1
    if begin < end:
        yield begin, end


def _inside(text: str, start: int, end: int) -> tuple[int, int] | None:
    """Return [start, end) of what the weight of text[start:end] applies to, None when it carries none."""
    if end - start < 2 or text[start] != "(" or text[end - 1] != ")":
        return None
    colon = text.rfind(":", start + 1, end - 1)
    if colon > start + 1 and _is_number(text[colon + 1 : end - 1]):
        return start + 1, colon
    return start + 1, end - 1


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
