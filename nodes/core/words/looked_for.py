"""Words that maps are wanted of although they need not be in the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .named_words import SEPARATORS, one_entry
from .parsing import find_words
from .prompt_text import check_prompt, plain_text
from .subjects import LOOKED_FOR, Subject, Subjects
from .tokens import TokenSpan


def read_looked_for(
    text: str, subjects: Subjects, tokens: Mapping[str, Sequence[TokenSpan]], anew: bool = False
) -> tuple[tuple[Subject, ...], dict[str, str]]:
    """Return the words or phrases of `text` that stand in the prompt, and those that do not.

    text: as typed, separated by commas or line breaks; "dog#2" is only the second dog of the prompt. tokens: of the
    prompt, see `parse`. The first result has an entry for every place in the prompt, but none where a subject stands
    already: that has its map. anew: it gets one of another kind, so there is an entry, too. The second has, under its
    label, each text to encode, with its weights. Raises ValueError for a number that the prompt has no such word for,
    and as `check_prompt` and `plain_text`.
    """
    check_prompt(text)
    inside: dict[tuple[int, int], Subject] = {}
    absent: dict[str, str] = {}
    for typed in SEPARATORS.split(text):
        label = " ".join(plain_text(typed).text.split())
        if not label:
            continue
        entry = one_entry(label, LOOKED_FOR, "look_for")
        found = find_words(subjects.prompt, tokens, entry)
        if not found and entry.occurrence is not None:
            raise ValueError(
                f"look_for: '{label}' has a number, but '{entry.words}' is not in the prompt. Leave the number out."
            )
        inside |= {item.span: item for item in found}
        absent |= {} if found else {label: typed.strip()}
    taken = set() if anew else {item.span for item in subjects.items}
    return tuple(item for span, item in inside.items() if span not in taken), absent
