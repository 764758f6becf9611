"""Which words of a prompt are its subjects and which its scene."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from . import grammar, lexicon
from .phrases import Phrase, find_phrases
from .subjects import Role

if TYPE_CHECKING:
    from spacy.tokens import Doc

Found = tuple[int, int, Role]

_MAX_WORDS_PER_TAG = 4
_NO_TAG_SUBJECT = lexicon.ATTRIBUTES | lexicon.BODY | lexicon.ABSTRACT | lexicon.COLOURS | lexicon.ARTISTS | lexicon.FAR
_NOT_INTO = frozenset({"", "of", "with", "without", "for", "like", "featuring", "including", "depicting", "showing"})


def find_roles(doc: Doc, whole_phrase: bool) -> list[Found]:
    """Return (start, end, role) for every word of interest, characters of the tagged text, in order.

    whole_phrase: the phrase with its adjectives, without its determiner, in place of the head noun.
    """
    phrases = [phrase for phrase in find_phrases(doc) if doc[phrase.head].lower_ not in grammar.PRONOUNS]
    chosen = _tags(doc, phrases) if is_tag_list(doc.text) else _sentences(doc, phrases)
    return sorted((*_characters(doc, phrase, whole_phrase), role) for phrase, role in chosen)


def is_tag_list(text: str) -> bool:
    """Return whether a prompt is a list of tags: three or more short parts between commas, none a sentence."""
    parts = [part.split() for part in re.split(r"[,\n;|]", text.lower()) if part.strip()]
    short = sum(len(part) <= _MAX_WORDS_PER_TAG for part in parts)
    words = [word for part in parts for word in part]
    determiners = sum(word in grammar.DETERMINERS for word in words)
    sentence = any(word in grammar.AUXILIARIES for word in words) or determiners > len(parts) / 2
    return len(parts) >= 3 and short >= 0.75 * len(parts) and not sentence


def _characters(doc: Doc, phrase: Phrase, whole: bool) -> tuple[int, int]:
    first = phrase.head
    if whole:
        first = next(i for i in range(phrase.start, phrase.head + 1) if doc[i].pos_ not in ("DET", "SPACE", "PUNCT"))
    return doc[first].idx, doc[phrase.head].idx + len(doc[phrase.head])


def _tags(doc: Doc, phrases: list[Phrase]) -> Iterator[tuple[Phrase, Role]]:
    """Tags: places are scenes, quality, style, time and attributes are nothing, the rest are subjects."""
    place: Phrase | None = None
    for phrase in _meant(doc, phrases):
        if phrase.after_of and place is not None:
            continue
        place = None
        head = doc[phrase.head].lower_
        if head in lexicon.STYLES | lexicon.TIMES and not lexicon.is_setting(head):
            continue
        if lexicon.is_setting(head) or head in lexicon.FIXTURES or _is_located(doc, phrase) or _is_far(doc, phrase):
            if head not in lexicon.FAR:
                place = phrase
                yield phrase, "scene"
        elif head not in _NO_TAG_SUBJECT:
            yield phrase, "subject"


def _sentences(doc: Doc, phrases: list[Phrase]) -> list[tuple[Phrase, Role]]:
    """Sentences: the places that a preposition puts something in, on or at are scenes, what else is named subjects."""
    meant: list[Phrase] = []
    skipped = False
    for phrase in _meant(doc, phrases):
        skipped = _is_nothing(doc, phrase) or (skipped and phrase.after_of)
        if not skipped:
            meant.append(phrase)
    places = {phrase.head for phrase in meant if _is_place(doc, phrase, meant)}
    supports = [phrase for phrase in meant if _is_located(doc, phrase)]
    if not places and supports:
        last = supports[-1]
        places = {phrase.head for phrase in supports if phrase.joined and phrase.governor == last.governor} | {
            last.head
        }
    chosen: list[tuple[Phrase, Role]] = []
    skipped = False
    for i, phrase in enumerate(meant):
        behind_place = i > 0 and meant[i - 1].head in places
        skipped = (skipped and phrase.joined) or (behind_place and _describes_place(phrase))
        if phrase.head in places:
            chosen.append((phrase, "scene"))
        elif not skipped:
            chosen.append((phrase, "subject"))
    return chosen


def _meant(doc: Doc, phrases: list[Phrase]) -> Iterator[Phrase]:
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
        head = doc[phrase.head].lower_
        followed = i + 1 < len(phrases) and phrases[i + 1].after_of
        if followed and head in lexicon.COLLECTIVES | lexicon.PARTS | lexicon.FRAMES | lexicon.BODY:
            governor = (
                "on" if head in lexicon.PARTS and phrase.governor in ("to", "toward", "towards") else phrase.governor
            )
            taken_over = replace(phrase, governor="" if head in lexicon.FRAMES else governor)
            continue
        yield phrase


def _is_nothing(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase names no thing and no place: a time, a style, an artist, a colour, an abstraction."""
    head = doc[phrase.head].lower_
    if head in lexicon.TIMES | lexicon.ABSTRACT | lexicon.FAR:
        return True
    if head in lexicon.STYLES | lexicon.FRAMES and not lexicon.is_setting(head):
        return True
    if head in lexicon.ARTISTS:
        return True
    if phrase.governor == "in" and head in lexicon.COLOURS:
        return True
    return phrase.governor == "by" and doc[phrase.head].pos_ == "PROPN" and not lexicon.is_setting(head)


def _is_located(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a locative preposition says that something is there."""
    head = doc[phrase.head].lower_
    worn = {head, head.removesuffix("s")} & (lexicon.CLOTHES | lexicon.BODY)
    if phrase.governor not in grammar.LOCATIVE or worn or _belongs_to_verb(phrase):
        return False
    agent = phrase.governor == "by" and phrase.verb.endswith(("ed", "lit", "made"))
    return not agent


def _describes_place(phrase: Phrase) -> bool:
    """Return whether a phrase right behind a place only says more about it ("of lavender", "covered with leaves")."""
    if phrase.detached or phrase.joined:
        return False
    return phrase.after_of or (
        phrase.governor != "" and (phrase.governor != "with" or (phrase.verb.endswith("ed") and not phrase.finite))
    )


def _is_far(doc: Doc, phrase: Phrase) -> bool:
    after = doc[phrase.end : phrase.end + 3].text.lower()
    return after.startswith(("in the background", "in the distance", "in background"))


def _belongs_to_verb(phrase: Phrase) -> bool:
    """Return whether the preposition makes no place: "looks at X", "dressed in X"."""
    return phrase.verb in lexicon.NO_PLACE_AFTER and phrase.governor in ("at", "in", "on", "by")


def _is_place(doc: Doc, phrase: Phrase, phrases: list[Phrase]) -> bool:
    head = doc[phrase.head].lower_
    if _is_far(doc, phrase):
        return True
    if lexicon.is_setting(head):
        if phrase.governor:
            return phrase.after_of or (phrase.governor not in _NOT_INTO and not _belongs_to_verb(phrase))
        alone = phrase is phrases[0] and (len(phrases) == 1 or phrases[1].governor == "with")
        return alone or phrase.verb in lexicon.PLACE_VERBS or (phrase.sentence > 0 and not phrase.verb)
    part_of_place = head in lexicon.PARTS and any(lexicon.is_setting(t.lower_) for t in doc[phrase.start : phrase.head])
    named = doc[phrase.head].pos_ == "PROPN" and phrase.governor in ("in", "at", "near", "through", "across", "outside")
    return (named or part_of_place or head in lexicon.STRUCTURES) and _is_located(doc, phrase)
