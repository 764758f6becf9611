"""The phrases of a prompt that say what is in the picture, without what only introduces, counts or denies them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from . import lexicon
from .meaning import kind
from .phrases import NOUNS, Phrase
from .senses import ANIMATE
from .syntax import UNKNOWN

if TYPE_CHECKING:
    from spacy.tokens import Doc


def meant_phrases(doc: Doc, phrases: list[Phrase]) -> Iterator[Phrase]:
    """Replace "a photo of X", "a group of X", "the top of X" by X, which takes over the place in the sentence."""
    taken_over: Phrase | None = None
    for i, phrase in enumerate(phrases):
        if taken_over is not None and phrase.after_of:
            phrase = replace(
                phrase,
                governor=taken_over.governor,
                verb=taken_over.verb,
                joined=taken_over.joined,
                detached=taken_over.detached,
            )
        taken_over = None
        if doc[phrase.head].text == UNKNOWN and phrase.head > phrase.start and doc[phrase.head - 1].pos_ in NOUNS:
            phrase = replace(phrase, head=phrase.head - 1)  # "a raccoon __wearing__ a crown"
        head = doc[phrase.head].lower_
        followed = i + 1 < len(phrases) and phrases[i + 1].after_of
        if followed and _stands_for_next(head):
            governor = phrase.governor
            if head in lexicon.INTERIORS and not governor:
                governor = "in"
            elif head in lexicon.PARTS and governor in ("to", "toward", "towards"):
                governor = "on"
            taken_over = replace(phrase, governor="" if head in lexicon.FRAMES else governor)
            continue
        yield _pictured(doc, phrase) if head in lexicon.FRAMES | lexicon.FAR else phrase


def _pictured(doc: Doc, phrase: Phrase) -> Phrase:
    """Return "a snowy owl" for "a snowy owl portrait" and "forest" for "forest background", else the phrase."""
    shown = doc[max(phrase.head - 1, phrase.start)]
    if doc[phrase.head].lower_ in lexicon.FAR:
        pictured = kind(shown.lower_) in ("place", "building")
    else:
        pictured = shown.pos_ in NOUNS and shown.lower_ not in lexicon.GENRES and kind(shown.lower_) in ANIMATE
    return replace(phrase, head=shown.i, end=shown.i + 1) if pictured else phrase


def _stands_for_next(head: str) -> bool:
    if head in lexicon.COLLECTIVES | lexicon.PARTS | lexicon.FRAMES or kind(head) == "body":
        return True
    return kind(head) == "medium" and head not in lexicon.KINDS["medium"]


def without_negated(doc: Doc, phrases: list[Phrase]) -> list[Phrase]:
    """Leave out "no people", "without a leash", with what is joined to them."""
    kept: list[Phrase] = []
    negated = False
    for phrase in phrases:
        says_no = phrase.governor == "without" or doc[phrase.start].lower_ in ("no", "zero")
        negated = says_no or (negated and phrase.joined and phrase.governor == "without")
        if not negated:
            kept.append(phrase)
    return kept
