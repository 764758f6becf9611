"""What a prompt is a picture of, among all that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..subjects import Role
from . import lexicon
from .phrases import COUNTED, Phrase
from .senses import ANIMATE, ATTRIBUTES, kind_of
from .syntax import EMBEDDING

if TYPE_CHECKING:
    from spacy.tokens import Doc

Chosen = list[tuple[Phrase, Role]]

# What a picture of a place shows as a part of it.
_FURNISHING = ATTRIBUTES | {"plant", "building", "support", "natural", "place"}


def main_only(doc: Doc, chosen: Chosen, meant: list[Phrase]) -> Chosen:
    """Keep the first subject, with what "and" joins to it, and the scenes."""
    scenes = [(phrase, role) for phrase, role in chosen if role == "scene"]
    subjects = [phrase for phrase, role in chosen if role == "subject"]
    if chosen and chosen[0][1] == "scene" and _is_picture_of(doc, chosen[0][0]):
        subjects = [phrase for i, phrase in enumerate(subjects) if _stands_out(doc, phrase, i == 0)]
    subjects = [phrase for phrase in subjects if not _is_lone_embedding(doc, phrase)] or subjects
    if not subjects:
        return scenes
    main = [subjects[0]]
    for phrase in subjects[1:]:
        if _belongs(doc, phrase, main, meant):
            main.append(phrase)
    return [*scenes, *((phrase, "subject") for phrase in main)]


def _is_lone_embedding(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase is an embedding that stands between commas: of a style or of faults, as a rule."""
    return phrase.head == phrase.start and bool(EMBEDDING.fullmatch(doc[phrase.head].text)) and not phrase.governor


def _is_picture_of(doc: Doc, phrase: Phrase) -> bool:
    """Return whether the prompt is a picture of a place: no preposition puts anything there but "interior of"."""
    before = doc[max(phrase.start - 2, 0)].lower_
    return not phrase.governor or before in lexicon.INTERIORS


def _stands_out(doc: Doc, phrase: Phrase, first: bool) -> bool:
    """Return whether a phrase is the main subject although the prompt begins with a place.

    Whoever is there is, and what is first said to do something; furniture and the like belong to the place.
    """
    means = kind_of(doc, phrase)
    acts = phrase.sentence == 0 and phrase.end < len(doc) and doc[phrase.end].pos_ == "VERB"
    return means in ANIMATE or means == "vehicle" or (first and acts and means not in _FURNISHING)


def _belongs(doc: Doc, phrase: Phrase, main: list[Phrase], meant: list[Phrase]) -> bool:
    """Return whether "and" joins a phrase to the main subject."""
    order = [each.head for each in meant]
    at = order.index(phrase.head)
    if all(COUNTED.fullmatch(doc[each.head].lower_) for each in (*main, phrase)):
        return True
    if not phrase.joined:
        return False
    # "a man with a cello and a woman with a flute"
    before = meant[at - 1]
    across = before.governor == "with" and kind_of(doc, phrase) == kind_of(doc, main[0]) != kind_of(doc, before)
    return main[-1].head in (order[at - 1], order[at - 2] if across else None)
