"""Which words of a prompt are its subjects and which its scene."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from ..subjects import Role
from . import word_lists
from .content_phrases import content_phrases
from .foreign_syntax import WILDCARD_WORD
from .main_subject import PhraseRoles, keep_main_subject
from .noun_phrases import Phrase, find_phrases
from .phrase_kinds import (
    ANIMATE,
    ATTRIBUTES,
    describes_place,
    is_in_background,
    is_invisible,
    is_location,
    is_scene,
    phrase_kind,
    stands_alone,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc

FoundWord = tuple[int, int, Role]  # its characters [start, end) and its role

_MAX_WORDS_PER_TAG = 4


def find_roles(doc: Doc, whole_phrase: bool, main: bool) -> list[FoundWord]:
    """Return (start, end, role) for every subject and scene, characters of the tagged text, in order.

    whole_phrase: the phrase with its adjectives but without its determiner, instead of the head noun. main: of the
    subjects only the main one and what "and" joins to it.
    """
    nouns = [phrase for phrase in find_phrases(doc) if doc[phrase.head].lower_ not in word_lists.PRONOUNS]
    phrases = content_phrases(doc, nouns)
    roles = _roles_of_tags(doc, phrases) if is_tag_list(doc.text) else _roles_of_sentences(doc, phrases)
    if main:
        roles = keep_main_subject(doc, roles, phrases)
    known = [(phrase, role) for phrase, role in roles if doc[phrase.head].text != WILDCARD_WORD]
    return sorted((*_characters(doc, phrase, whole_phrase), role) for phrase, role in known)


def is_tag_list(text: str) -> bool:
    """Return whether a prompt is a list of tags: three or more short parts between commas, none a sentence."""
    parts = [part.split() for part in re.split(r"[,\n;|]", text.lower()) if part.strip()]
    short = sum(len(part) <= _MAX_WORDS_PER_TAG for part in parts)
    words = [word for part in parts for word in part]
    determiners = sum(word in word_lists.ARTICLES for word in words)
    sentence = any(word in word_lists.AUXILIARIES for word in words) or determiners > len(parts) / 2
    return len(parts) >= 3 and short >= 0.75 * len(parts) and not sentence


def _characters(doc: Doc, phrase: Phrase, whole: bool) -> tuple[int, int]:
    """Return [start, end) of a phrase's head noun, or of the whole phrase, in the tagged text."""
    first = phrase.head
    if whole:
        first = next(i for i in range(phrase.start, phrase.head + 1) if doc[i].pos_ not in ("DET", "SPACE", "PUNCT"))
    return doc[first].idx, doc[phrase.head].idx + len(doc[phrase.head])


def _roles_of_tags(doc: Doc, phrases: list[Phrase]) -> PhraseRoles:
    """A list of tags: places are scenes; quality, style, time and attributes have no role; the rest are subjects."""
    roles: PhraseRoles = []
    skipped = medium = False
    for listed in phrases:
        phrase = replace(listed, preposition="", joined=False) if listed.comma else listed
        skipped = is_invisible(doc, phrase) or (
            skipped and (phrase.after_of or (medium and _says_more_about_medium(phrase)))
        )
        medium = phrase_kind(doc, phrase) == "medium"
        role = None if skipped else _role_of_tag(doc, phrase)
        if role == "scene":
            skipped = True  # and so is what it is a place of
        if role:
            roles.append((phrase, role))
    first = roles[0][0] if roles else None
    if first is not None and phrase_kind(doc, first) == "building" and _is_building_the_subject(doc, first, roles):
        roles[0] = first, "subject"
    visible = next((phrase for phrase in phrases if not is_invisible(doc, phrase)), None)
    animate = any(role == "subject" and phrase_kind(doc, phrase) in ANIMATE for phrase, role in roles)
    if visible is not None and not animate and phrase_kind(doc, visible) in ATTRIBUTES and visible is not first:
        roles.insert(0, (visible, "subject"))  # shoes, a head or rain may be what the picture shows
    return roles


def _role_of_tag(doc: Doc, phrase: Phrase) -> Role | None:
    kind = phrase_kind(doc, phrase)
    if kind in ("place", "building") or is_location(doc, phrase) or is_in_background(doc, phrase):
        return "scene"
    return None if kind in ATTRIBUTES else "subject"


def _is_building_the_subject(doc: Doc, first: Phrase, roles: PhraseRoles) -> bool:
    """Return whether a building that is named first is the subject: it stands somewhere, or nothing else is shown."""
    if first.preposition:
        return False
    kinds = [(phrase_kind(doc, phrase), role) for phrase, role in roles]
    second = roles[1][0] if len(roles) > 1 else None
    stands = second is not None and second.preposition in word_lists.LOCATIVE_PREPOSITIONS and not second.detached
    somebody = ("person", "subject") in kinds
    return stands or not somebody or all(role == "scene" or kind == "plant" for kind, role in kinds)


def _says_more_about_medium(phrase: Phrase) -> bool:
    """Return whether a phrase describes the medium in front of it ("ink on paper", "light through trees")."""
    return not phrase.detached and phrase.preposition in ("on", "through") and not phrase.verb


def _roles_of_sentences(doc: Doc, phrases: list[Phrase]) -> PhraseRoles:
    """Sentences: the places that a preposition puts something in, on or at are scenes, what else is named subjects."""
    visible: list[Phrase] = []
    skipped = False
    for phrase in phrases:
        skipped = is_invisible(doc, phrase) or (skipped and phrase.after_of)
        if not skipped:
            visible.append(phrase)
    scenes = _scene_heads(doc, visible)
    roles: PhraseRoles = []
    skipped = False
    for i, phrase in enumerate(visible):
        after_scene = i > 0 and visible[i - 1].head in scenes
        skipped = (skipped and phrase.joined) or (after_scene and describes_place(phrase))
        if phrase.head in scenes:
            roles.append((phrase, "scene"))
        elif not skipped and not (stands_alone(doc, phrase) and phrase_kind(doc, phrase) in ATTRIBUTES):
            roles.append((phrase, "subject"))
    return roles


def _scene_heads(doc: Doc, phrases: list[Phrase]) -> set[int]:
    """Return the heads of the scenes; if no phrase is one, of the last location and what a list joins to it."""
    scenes = {phrase.head for phrase in phrases if is_scene(doc, phrase, phrases)}
    locations = [phrase for phrase in phrases if is_location(doc, phrase)]
    if scenes or not locations:
        return scenes
    last = locations[-1]
    return {last.head} | {p.head for p in locations if p.joined and p.preposition == last.preposition}
