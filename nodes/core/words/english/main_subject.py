"""The main subject: what a prompt is a picture of, among all that it names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..subjects import Role
from . import word_lists
from .foreign_syntax import EMBEDDING_WORD
from .noun_phrases import COUNTED, Phrase
from .phrase_kinds import ANIMATE, ATTRIBUTES, phrase_kind

if TYPE_CHECKING:
    from spacy.tokens import Doc

PhraseRoles = list[tuple[Phrase, Role]]

# What a picture of a place shows as a part of it.
_FURNISHINGS = ATTRIBUTES | {"plant", "building", "support", "natural", "place"}


def keep_main_subject(doc: Doc, roles: PhraseRoles, phrases: list[Phrase]) -> PhraseRoles:
    """Keep the scenes and, of the subjects, the first one and what "and" joins to it.

    roles: the subjects and scenes found. phrases: all phrases that say what is in the picture.
    """
    scenes = [(phrase, role) for phrase, role in roles if role == "scene"]
    subjects = [phrase for phrase, role in roles if role == "subject"]
    if roles and roles[0][1] == "scene" and _is_picture_of(doc, roles[0][0]):
        subjects = [phrase for i, phrase in enumerate(subjects) if _stands_out(doc, phrase, i == 0)]
    subjects = [phrase for phrase in subjects if not _is_separate_embedding(doc, phrase)] or subjects
    if not subjects:
        return scenes
    main = [subjects[0]]
    for phrase in subjects[1:]:
        if _is_joined(doc, phrase, main, phrases):
            main.append(phrase)
    return [*scenes, *((phrase, "subject") for phrase in main)]


def _is_separate_embedding(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase is an embedding between commas: as a rule one for a style, or for faults to avoid."""
    is_embedding = phrase.head == phrase.start and bool(EMBEDDING_WORD.fullmatch(doc[phrase.head].text))
    return is_embedding and not phrase.preposition


def _is_picture_of(doc: Doc, place: Phrase) -> bool:
    """Return whether the prompt is a picture of this place: no preposition but "interior of" stands before it."""
    before = doc[max(place.start - 2, 0)].lower_
    return not place.preposition or before in word_lists.INTERIOR_NOUNS


def _stands_out(doc: Doc, phrase: Phrase, first: bool) -> bool:
    """Return whether a phrase is the main subject although the prompt begins with a place.

    People, animals and vehicles are, and so is the first phrase if it does something; furniture and the like count as
    parts of the place.
    """
    kind = phrase_kind(doc, phrase)
    acts = phrase.sentence == 0 and phrase.end < len(doc) and doc[phrase.end].pos_ == "VERB"
    return kind in ANIMATE or kind == "vehicle" or (first and acts and kind not in _FURNISHINGS)


def _is_joined(doc: Doc, phrase: Phrase, main: list[Phrase], phrases: list[Phrase]) -> bool:
    """Return whether "and" joins a phrase to the main subject."""
    heads = [each.head for each in phrases]
    at = heads.index(phrase.head)
    if all(COUNTED.fullmatch(doc[each.head].lower_) for each in (*main, phrase)):
        return True
    if not phrase.joined:
        return False
    before = phrases[at - 1]
    kind = phrase_kind(doc, phrase)
    # "a man with a cello and a woman with a flute"
    across = before.preposition == "with" and kind == phrase_kind(doc, main[0]) != phrase_kind(doc, before)
    return main[-1].head in (heads[at - 1], heads[at - 2] if across else None)
