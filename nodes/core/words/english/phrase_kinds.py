"""What a phrase of a prompt stands for: a thing of some kind, the scene, or nothing that could be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import word_lists
from .noun_kinds import INVISIBLE, noun_kinds, pictured_kind
from .noun_phrases import COUNTED, NOUNS, Phrase

if TYPE_CHECKING:
    from spacy.tokens import Doc

ANIMATE = frozenset({"person", "animal"})
# Kinds that, in a list of tags, describe somebody or something else.
ATTRIBUTES = frozenset({"body", "clothing", "weather", "substance"})
# Kinds that can hold or carry something: a scene where a preposition puts something there.
_CARRIERS = frozenset({"building", "support", "vehicle", "natural", "plant"})
# Prepositions that put nothing into the place that they precede.
_NOT_SPATIAL = frozenset({"with", "without", "for", "like", "featuring", "including", "depicting", "showing"})


def phrase_kind(doc: Doc, phrase: Phrase) -> str:
    """Return the kind (see `noun_kinds`) of what a phrase names."""
    head = doc[phrase.head].lower_
    if any(character.isdigit() for character in head):
        return "person" if COUNTED.fullmatch(head) else "abstract" if doc[phrase.head].pos_ == "NOUN" else "thing"
    before = doc[phrase.head - 1]
    compound = phrase.head > phrase.start and before.pos_ in NOUNS
    return pictured_kind(head, before.lower_ if compound else "")


def stands_alone(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase without determiner stands alone between commas, as a tag."""
    before = next((token.text for token in reversed(doc[: phrase.start]) if not token.is_space), "")
    after = next((token.text for token in doc[phrase.end :] if not token.is_space), ",")
    separated = {before, after} <= {",", ".", ";"}
    return separated and doc[phrase.start].pos_ != "DET" and not phrase.joined


def is_invisible(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase names no thing and no place: a time, a style, an artist, a colour, an abstraction."""
    head = doc[phrase.head].lower_
    if phrase.verb in word_lists.PUBLISHING_VERBS or head in word_lists.BACKGROUND_NOUNS | word_lists.PICTURE_NOUNS:
        return True
    return phrase_kind(doc, phrase) in INVISIBLE or (phrase.preposition == "by" and _is_artist(doc, phrase))


def _is_artist(doc: Doc, phrase: Phrase) -> bool:
    """Return whether what follows "by" is a name and not a place ("by the lake", "by window")."""
    first, head = doc[phrase.start], doc[phrase.head]
    if first.pos_ == "DET":
        return False
    named = head.pos_ == "PROPN" or phrase.head > phrase.start
    begins = first.i < 2 or doc[first.i - 2].text == "," or pictured_kind(doc[first.i - 2].lower_) == "medium"
    return named or begins or pictured_kind(head.lower_) not in ("place", *_CARRIERS)


def is_location(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a preposition says that something is there: in, on, under … what the phrase names."""
    worn = {"clothing", "body"} & {*noun_kinds(doc[phrase.head].lower_)}
    if phrase.preposition not in word_lists.LOCATIVE_PREPOSITIONS or worn or _belongs_to_verb(phrase):
        return False
    lifted = phrase.preposition in ("up", "down") and phrase.verb in word_lists.PARTICLE_VERBS
    done_by = phrase.preposition == "by" and phrase.verb.endswith(("ed", "lit", "made"))
    return not lifted and not done_by


def _belongs_to_verb(phrase: Phrase) -> bool:
    """Return whether, with the verb before it, the preposition names no place: "looks at X", "dressed in X"."""
    aimed = phrase.verb in word_lists.DIRECTED_VERBS and phrase.preposition == "at"
    return aimed or (phrase.verb in word_lists.COVERING_VERBS and phrase.preposition in ("at", "in", "on", "by"))


def describes_place(phrase: Phrase) -> bool:
    """Return whether a phrase right after a place only describes it ("of lavender", "covered with leaves")."""
    if phrase.detached or phrase.joined or not phrase.preposition:
        return False
    return phrase.preposition != "with" or (phrase.verb.endswith("ed") and not phrase.has_auxiliary)


def is_in_background(doc: Doc, phrase: Phrase) -> bool:
    """Return whether something other than a person or animal stands "in the background" or "in the distance"."""
    after = doc[phrase.end : phrase.end + 3].text.lower()
    in_background = after.startswith(("in the background", "in the distance", "in background"))
    return in_background and phrase_kind(doc, phrase) not in ANIMATE


def is_scene(doc: Doc, phrase: Phrase, phrases: list[Phrase]) -> bool:
    """Return whether a phrase of a sentence says where the picture is set. phrases: all that name something visible."""
    if is_in_background(doc, phrase):
        return True
    kind = phrase_kind(doc, phrase)
    if kind == "place":
        return _is_place_the_scene(doc, phrase, phrases)
    if kind == "building" and stands_alone(doc, phrase):
        return True
    head = doc[phrase.head].lower_
    if phrase.verb in word_lists.PLACE_OBJECT_VERBS and pictured_kind(head) in ("natural", "building"):
        return True
    inside = doc[phrase.start : phrase.head]
    part_of_place = head in word_lists.PART_NOUNS and any(pictured_kind(token.lower_) == "place" for token in inside)
    is_name = doc[phrase.head].pos_ == "PROPN"
    named_place = is_name and phrase.preposition in ("in", "at", "near", "through", "across", "outside")
    return (named_place or part_of_place or _can_hold(head, phrase)) and is_location(doc, phrase)


def _is_place_the_scene(doc: Doc, phrase: Phrase, phrases: list[Phrase]) -> bool:
    """Return whether a phrase that names a place says where the picture is set, rather than what somebody thinks of."""
    if phrase.preposition:
        return phrase.preposition not in _NOT_SPATIAL and not _belongs_to_verb(phrase)
    verb_after = _verb_after(doc, phrase)
    opens_sentence = phrase is next(each for each in phrases if each.sentence == phrase.sentence)
    if stands_alone(doc, phrase) or (opens_sentence and not verb_after) or phrase.verb in word_lists.PLACE_OBJECT_VERBS:
        return True
    return phrase.sentence > 0 and not phrase.verb and verb_after in ("AUX", "")


def _can_hold(head: str, phrase: Phrase) -> bool:
    """Return whether something can be in or on what the phrase names; also in the rain."""
    kind = pictured_kind(head)
    return kind in _CARRIERS or (kind == "weather" and phrase.preposition in ("in", "through", "under"))


def _verb_after(doc: Doc, phrase: Phrase) -> str:
    """Return the tag of the first verb after a phrase in its part of the sentence, "" for none."""
    for token in doc[phrase.end :]:
        if token.text in (",", ".", ";", "!", "?"):
            break
        if token.pos_ in ("VERB", "AUX"):
            return token.pos_
    return ""
