"""What a noun means: its kinds in WordNet, from a table of the pack, corrected where prompts use a word otherwise.

The table is made by `tests/tools/wordnet` and read on first use.
"""

from __future__ import annotations

import gzip
from functools import lru_cache
from pathlib import Path

from . import lexicon
from .word_forms import noun_stems

TABLE = Path(__file__).parent / "data" / "word_kinds.txt.gz"
# An animal may also be what is made of it (otter, chicken, turtle): the picture shows the animal.
_OF_ANIMALS = frozenset({"clothing", "substance", "food", "place"})
# What no picture shows.
NAMELESS = frozenset({"abstract", "medium", "time", "artist"})


@lru_cache(maxsize=1)
def _table() -> dict[str, tuple[str, ...]]:
    table: dict[str, tuple[str, ...]] = {}
    with gzip.open(TABLE, "rt", encoding="utf-8") as lines:
        for line in lines:
            names, _, found = line.partition(": ")
            kinds = tuple(names.split())
            table.update(dict.fromkeys(found.split(), kinds))
    for kind, found in lexicon.KINDS.items():
        table.update(dict.fromkeys(found, (kind,)))
    return table


@lru_cache(maxsize=1)
def _corrected() -> frozenset[str]:
    return frozenset().union(*lexicon.KINDS.values())


@lru_cache(maxsize=4096)
def kinds(word: str) -> tuple[str, ...]:
    """Return the kinds of a lower-case noun in singular or plural, the most frequent first; ("thing",) when unknown.

    Kinds: person, animal, thing, vehicle, building, support, place, natural, plant, food, group, body, clothing,
    weather, substance, artist, medium, time, abstract; see `data/README.md`.
    """
    table = _table()
    listed = next((table[stem] for stem in (word, *noun_stems(word)) if stem in _corrected()), None)
    found = listed or next((table[stem] for stem in noun_stems(word) if stem in table), None)
    if found is None and "-" in word:
        return kinds(word.rpartition("-")[2])
    if found in (None, ("thing",), ("group",)) and lexicon.ends_like_style(word):
        return ("medium",)
    return found or (("place",) if lexicon.ends_like_place(word) else ("thing",))


@lru_cache(maxsize=4096)
def kind(word: str, before: str = "") -> str:
    """Return the kind that a lower-case noun has in a picture: the first that can be seen, else its most frequent.

    before: the word in front of it in the phrase, for what both mean together (traffic light, still life).
    """
    found = kinds(word)
    if before and found[0] in NAMELESS:
        together = (_table().get(f"{before}_{stem}") for stem in noun_stems(word))
        found = next((each for each in together if each), found)
    seen = next((each for each in found if each not in NAMELESS), found[0])
    return "animal" if seen in _OF_ANIMALS and "animal" in found else seen
