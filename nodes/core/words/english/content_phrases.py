"""The phrases that say what is in the picture: without what only introduces, counts or denies something.

"a photo of a group of people, no cars" is left with "people".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from . import word_lists
from .foreign_syntax import WILDCARD_WORD
from .noun_kinds import CORRECTIONS, pictured_kind
from .noun_phrases import NOUNS, Phrase
from .phrase_kinds import ANIMATE

if TYPE_CHECKING:
    from spacy.tokens import Doc

# Heads of "... of X" that only lead to X.
_INTRODUCTIONS = word_lists.COLLECTIVE_NOUNS | word_lists.PART_NOUNS | word_lists.PICTURE_NOUNS


def content_phrases(doc: Doc, phrases: list[Phrase]) -> list[Phrase]:
    """Return the phrases that say what is in the picture, in order."""
    return _without_denied(doc, _without_introductions(doc, phrases))


def _without_introductions(doc: Doc, phrases: list[Phrase]) -> Iterator[Phrase]:
    """Replace "a photo of X", "a group of X", "the top of X" by X, which takes over their place in the sentence."""
    introduction: Phrase | None = None
    for i, phrase in enumerate(phrases):
        if introduction is not None and phrase.after_of:
            phrase = replace(
                phrase,
                preposition=introduction.preposition,
                verb=introduction.verb,
                joined=introduction.joined,
                detached=introduction.detached,
            )
        introduction = None
        if doc[phrase.head].text == WILDCARD_WORD and phrase.head > phrase.start and doc[phrase.head - 1].pos_ in NOUNS:
            phrase = replace(phrase, head=phrase.head - 1)  # "a raccoon __wearing__ a crown"
        head = doc[phrase.head].lower_
        if i + 1 < len(phrases) and phrases[i + 1].after_of and _introduces(head):
            introduction = replace(phrase, preposition=_preposition_passed_on(phrase, head))
        elif head in word_lists.PICTURE_NOUNS | word_lists.BACKGROUND_NOUNS:
            yield _pictured(doc, phrase)
        else:
            yield phrase


def _introduces(head: str) -> bool:
    """Return whether "<head> of X" stands for X."""
    kind = pictured_kind(head)
    return head in _INTRODUCTIONS or kind == "body" or (kind == "medium" and head not in CORRECTIONS["medium"])


def _preposition_passed_on(introduction: Phrase, head: str) -> str:
    """Return the preposition that X of "<head> of X" gets from the introduction."""
    if head in word_lists.PICTURE_NOUNS:
        return ""
    if head in word_lists.INTERIOR_NOUNS and not introduction.preposition:
        return "in"
    if head in word_lists.PART_NOUNS and introduction.preposition in ("to", "toward", "towards"):
        return "on"
    return introduction.preposition


def _pictured(doc: Doc, phrase: Phrase) -> Phrase:
    """Return "a snowy owl" for "a snowy owl portrait" and "forest" for "forest background", else the phrase."""
    shown = doc[max(phrase.head - 1, phrase.start)]
    kind = pictured_kind(shown.lower_)
    if doc[phrase.head].lower_ in word_lists.BACKGROUND_NOUNS:
        is_pictured = kind in ("place", "building")
    else:
        is_pictured = shown.pos_ in NOUNS and shown.lower_ not in word_lists.GENRE_NOUNS and kind in ANIMATE
    return replace(phrase, head=shown.i, end=shown.i + 1) if is_pictured else phrase


def _without_denied(doc: Doc, phrases: Iterator[Phrase]) -> list[Phrase]:
    """Leave out "no people" and "without a leash", with what is joined to them."""
    kept: list[Phrase] = []
    denied = False
    for phrase in phrases:
        says_no = phrase.preposition == "without" or doc[phrase.start].lower_ in ("no", "zero")
        denied = says_no or (denied and phrase.joined and phrase.preposition == "without")
        if not denied:
            kept.append(phrase)
    return kept
