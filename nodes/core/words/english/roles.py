"""Which words of a prompt are its subjects and which its scene."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..subjects import Role
from . import grammar
from .main_subject import Chosen, main_only
from .meant import meant_phrases, without_negated
from .phrases import Phrase, find_phrases
from .senses import ANIMATE, ATTRIBUTES, describes_place, is_alone, is_far, is_located, is_nothing, is_place, kind_of
from .syntax import UNKNOWN

if TYPE_CHECKING:
    from spacy.tokens import Doc

Found = tuple[int, int, Role]

_MAX_WORDS_PER_TAG = 4


def find_roles(doc: Doc, whole_phrase: bool, main: bool) -> list[Found]:
    """Return (start, end, role) for every word of interest, characters of the tagged text, in order.

    whole_phrase: the phrase with its adjectives, without its determiner, in place of the head noun. main: of the
    subjects only the main one, with what "and" joins to it.
    """
    phrases = [phrase for phrase in find_phrases(doc) if doc[phrase.head].lower_ not in grammar.PRONOUNS]
    meant = without_negated(doc, list(meant_phrases(doc, phrases)))
    chosen = list(_tags(doc, meant) if is_tag_list(doc.text) else _sentences(doc, meant))
    if main:
        chosen = main_only(doc, chosen, meant)
    known = [(phrase, role) for phrase, role in chosen if doc[phrase.head].text != UNKNOWN]
    return sorted((*_characters(doc, phrase, whole_phrase), role) for phrase, role in known)


def is_tag_list(text: str) -> bool:
    """Return whether a prompt is a list of tags: three or more short parts between commas, none a sentence."""
    parts = [part.split() for part in re.split(r"[,\n;|]", text.lower()) if part.strip()]
    short = sum(len(part) <= _MAX_WORDS_PER_TAG for part in parts)
    words = [word for part in parts for word in part]
    determiners = sum(word in grammar.ARTICLES for word in words)
    sentence = any(word in grammar.AUXILIARIES for word in words) or determiners > len(parts) / 2
    return len(parts) >= 3 and short >= 0.75 * len(parts) and not sentence


def _characters(doc: Doc, phrase: Phrase, whole: bool) -> tuple[int, int]:
    first = phrase.head
    if whole:
        first = next(i for i in range(phrase.start, phrase.head + 1) if doc[i].pos_ not in ("DET", "SPACE", "PUNCT"))
    return doc[first].idx, doc[phrase.head].idx + len(doc[phrase.head])


def _tags(doc: Doc, meant: list[Phrase]) -> Chosen:
    """Tags: places are scenes, quality, style, time and attributes are nothing, the rest are subjects."""
    chosen: Chosen = []
    skipped = medium = False
    for listed in meant:
        phrase = replace(listed, governor="", joined=False) if listed.comma else listed
        nothing = is_nothing(doc, phrase)
        skipped = nothing or (skipped and (phrase.after_of or (medium and _goes_with(phrase))))
        medium = kind_of(doc, phrase) == "medium"
        role = None if skipped else _tag_role(doc, phrase)
        if role == "scene":
            skipped = True  # and so is what it is a place of
        if role:
            chosen.append((phrase, role))
    first = chosen[0][0] if chosen else None
    if first is not None and kind_of(doc, first) == "building" and _is_what_is_shown(doc, first, chosen):
        chosen[0] = first, "subject"
    named = next((phrase for phrase in meant if not is_nothing(doc, phrase)), None)
    animate = any(role == "subject" and kind_of(doc, phrase) in ANIMATE for phrase, role in chosen)
    if named is not None and not animate and kind_of(doc, named) in ATTRIBUTES and named is not first:
        chosen.insert(0, (named, "subject"))  # shoes, a head or rain may be what is shown
    return chosen


def _tag_role(doc: Doc, phrase: Phrase) -> Role | None:
    means = kind_of(doc, phrase)
    if means in ("place", "building") or is_located(doc, phrase) or is_far(doc, phrase):
        return "scene"
    return None if means in ATTRIBUTES else "subject"


def _is_what_is_shown(doc: Doc, first: Phrase, chosen: Chosen) -> bool:
    """Return whether a building that is named first is no scene: it stands somewhere, or nothing else is shown."""
    others = [(role, kind_of(doc, phrase)) for phrase, role in chosen]
    stands = len(chosen) > 1 and chosen[1][0].governor in grammar.LOCATIVE and not chosen[1][0].detached
    somebody = any(role == "subject" and means == "person" for role, means in others)
    return not first.governor and (
        stands or not somebody or all(role == "scene" or kind == "plant" for role, kind in others)
    )


def _goes_with(phrase: Phrase) -> bool:
    """Return whether a phrase only says more about a medium in front of it ("ink on paper", "light through trees")."""
    return not phrase.detached and phrase.governor in ("on", "through") and not phrase.verb


def _sentences(doc: Doc, phrases: list[Phrase]) -> Chosen:
    """Sentences: the places that a preposition puts something in, on or at are scenes, what else is named subjects."""
    meant: list[Phrase] = []
    skipped = False
    for phrase in phrases:
        skipped = is_nothing(doc, phrase) or (skipped and phrase.after_of)
        if not skipped:
            meant.append(phrase)
    places = {phrase.head for phrase in meant if is_place(doc, phrase, meant)}
    supports = [phrase for phrase in meant if is_located(doc, phrase)]
    if not places and supports:
        last = supports[-1]
        places = {phrase.head for phrase in supports if phrase.joined and phrase.governor == last.governor} | {
            last.head
        }
    chosen: Chosen = []
    skipped = False
    for i, phrase in enumerate(meant):
        behind_place = i > 0 and meant[i - 1].head in places
        skipped = (skipped and phrase.joined) or (behind_place and describes_place(phrase))
        if phrase.head in places:
            chosen.append((phrase, "scene"))
        elif not skipped and not (is_alone(doc, phrase) and kind_of(doc, phrase) in ATTRIBUTES):
            chosen.append((phrase, "subject"))
    return chosen
