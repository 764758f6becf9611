"""What a phrase of a prompt stands for: a thing of some kind, a place, or nothing that could be seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import grammar, lexicon
from .meaning import NAMELESS, kind, kinds
from .phrases import COUNTED, NOUNS, Phrase

if TYPE_CHECKING:
    from spacy.tokens import Doc

ANIMATE = frozenset({"person", "animal"})
# What belongs to something or somebody else, in a list of tags.
ATTRIBUTES = frozenset({"body", "clothing", "weather", "substance"})
# What can hold or carry something: a scene where a preposition puts something there.
_STRUCTURES = frozenset({"building", "support", "vehicle", "natural", "plant"})
_NOT_INTO = frozenset({"", "of", "with", "without", "for", "like", "featuring", "including", "depicting", "showing"})


def kind_of(doc: Doc, phrase: Phrase) -> str:
    """Return the kind (see `meaning.kinds`) of what a phrase names."""
    head = doc[phrase.head].lower_
    if any(character.isdigit() for character in head):
        return "person" if COUNTED.fullmatch(head) else "abstract" if doc[phrase.head].pos_ == "NOUN" else "thing"
    before = doc[phrase.head - 1]
    compound = phrase.head > phrase.start and before.pos_ in NOUNS
    return kind(head, before.lower_ if compound else "")


def is_alone(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase without determiner stands alone between commas, as a tag."""
    before = next((token.text for token in reversed(doc[: phrase.start]) if not token.is_space), "")
    after = next((token.text for token in doc[phrase.end :] if not token.is_space), ",")
    separated = {before, after} <= {",", ".", ";"}
    return separated and doc[phrase.start].pos_ != "DET" and not phrase.joined


def is_nothing(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a phrase names no thing and no place: a time, a style, an artist, a colour, an abstraction."""
    head = doc[phrase.head].lower_
    if (
        phrase.verb in lexicon.SHOWN
        or head in lexicon.FAR
        or head in lexicon.FRAMES
        or kind_of(doc, phrase) in NAMELESS
    ):
        return True
    return phrase.governor == "by" and _is_artist(doc, phrase)


def _is_artist(doc: Doc, phrase: Phrase) -> bool:
    """Return whether what follows "by" is a name and not a place ("by the lake", "by window")."""
    first, head = doc[phrase.start], doc[phrase.head]
    if first.pos_ == "DET":
        return False
    named = head.pos_ == "PROPN" or phrase.head > phrase.start
    begins = first.i < 2 or doc[first.i - 2].text == "," or kind(doc[first.i - 2].lower_) == "medium"
    return named or begins or kind(head.lower_) not in ("place", *_STRUCTURES)


def is_located(doc: Doc, phrase: Phrase) -> bool:
    """Return whether a locative preposition says that something is there."""
    head = doc[phrase.head].lower_
    worn = {"clothing", "body"} & {*kinds(head)}
    lifted = phrase.governor in ("up", "down") and phrase.verb in lexicon.PARTICLE_VERBS
    if phrase.governor not in grammar.LOCATIVE or worn or lifted or _belongs_to_verb(phrase):
        return False
    agent = phrase.governor == "by" and phrase.verb.endswith(("ed", "lit", "made"))
    return not agent


def _belongs_to_verb(phrase: Phrase) -> bool:
    """Return whether the preposition makes no place: "looks at X", "dressed in X"."""
    aimed = phrase.verb in lexicon.AIMED and phrase.governor == "at"
    return aimed or (phrase.verb in lexicon.CLAD and phrase.governor in ("at", "in", "on", "by"))


def describes_place(phrase: Phrase) -> bool:
    """Return whether a phrase right behind a place only says more about it ("of lavender", "covered with leaves")."""
    if phrase.detached or phrase.joined:
        return False
    return phrase.after_of or (
        phrase.governor != "" and (phrase.governor != "with" or (phrase.verb.endswith("ed") and not phrase.finite))
    )


def is_far(doc: Doc, phrase: Phrase) -> bool:
    """Return whether something stands in the background and is no person or animal."""
    after = doc[phrase.end : phrase.end + 3].text.lower()
    behind = after.startswith(("in the background", "in the distance", "in background"))
    return behind and kind_of(doc, phrase) not in ANIMATE


def is_place(doc: Doc, phrase: Phrase, phrases: list[Phrase]) -> bool:
    """Return whether a phrase of a sentence says where the picture plays; phrases: all that the prompt means."""
    head = doc[phrase.head].lower_
    if is_far(doc, phrase):
        return True
    if kind_of(doc, phrase) == "building" and is_alone(doc, phrase):
        return True
    if kind_of(doc, phrase) == "place":
        if phrase.governor:
            return phrase.after_of or (phrase.governor not in _NOT_INTO and not _belongs_to_verb(phrase))
        if is_alone(doc, phrase) or (phrase is _first_of_sentence(phrase, phrases) and not _verb_after(doc, phrase)):
            return True
        return phrase.verb in lexicon.PLACE_VERBS or (
            phrase.sentence > 0 and not phrase.verb and _verb_after(doc, phrase) in ("AUX", "")
        )
    if phrase.verb in lexicon.PLACE_VERBS and kind(head) in ("natural", "building"):
        return True
    part_of_place = head in lexicon.PARTS and any(
        kind(token.lower_) == "place" for token in doc[phrase.start : phrase.head]
    )
    named = doc[phrase.head].pos_ == "PROPN" and phrase.governor in ("in", "at", "near", "through", "across", "outside")
    return (named or part_of_place or _is_structure(head, phrase)) and is_located(doc, phrase)


def _is_structure(head: str, phrase: Phrase) -> bool:
    return kind(head) in _STRUCTURES or (kind(head) == "weather" and phrase.governor in ("in", "through", "under"))


def _first_of_sentence(phrase: Phrase, phrases: list[Phrase]) -> Phrase:
    return next(each for each in phrases if each.sentence == phrase.sentence)


def _verb_after(doc: Doc, phrase: Phrase) -> str:
    """Return the tag of the first verb behind a phrase in its part of the sentence, "" for none."""
    for token in doc[phrase.end :]:
        if token.text in (",", ".", ";", "!", "?"):
            break
        if token.pos_ in ("VERB", "AUX"):
            return token.pos_
    return ""
