"""The noun phrases of a tagged prompt, each with its head noun and the preposition in front of it."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from . import word_lists

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

_INSIDE = ("DET", "ADJ", "NOUN", "PROPN", "NUM", "PART")
# 1girl, 6+boys
COUNTED = re.compile(r"\d+\+?(?:girl|boy|other)s?")
NOUNS = ("NOUN", "PROPN")
# "out of", "away from", "next to" … are one preposition.
_BEFORE_OF_OR_TO = ("out", "inside", "outside", "close", "next", "away")
_SENTENCE_ENDS = (".", "!", "?", ";")


def word_class(token: Token) -> str:
    """Return the part of speech that a token has in its phrase.

    A spaCy model tags some words by their form instead ("his" as pronoun, "burning" in "burning house" as verb).
    """
    if COUNTED.fullmatch(token.lower_):
        return "NOUN"
    if token.pos_ == "PRON" and token.lower_ in word_lists.DETERMINERS:
        return "DET"
    describes_noun = token.pos_ == "VERB" and token.dep_ in ("amod", "compound") and token.i < token.head.i
    return "ADJ" if describes_noun else token.pos_


@dataclass(frozen=True)
class Phrase:
    """A noun phrase.

    start, end: its tokens [start, end). head: its head noun's token. preposition: the one in front of it, lower case,
    "" for none. joined: it continues a list that the phrase before belongs to ("and …", ", …"); comma: by a comma
    alone. verb: the verb in front (of the preposition, if there is one), lower case, "" for none. has_auxiliary: an
    auxiliary stands in front of that verb ("is filled"). detached: a comma or the like stands between it and the phrase
    before. sentence: the number of its sentence, from 0.
    """

    start: int
    head: int
    end: int
    preposition: str
    joined: bool
    comma: bool
    verb: str
    has_auxiliary: bool
    detached: bool
    sentence: int

    @property
    def after_of(self) -> bool:
        """Whether the phrase qualifies the one before it ("a field of lavender")."""
        return self.preposition == "of"


def find_phrases(doc: Doc) -> list[Phrase]:
    """Return the noun phrases in order; those of a list share a preposition ("on a hill and a beach")."""
    spans = _word_runs(doc)
    phrases: list[Phrase] = []
    sentence = 0
    end = 0
    for span, joined in zip(spans, _joined(doc, spans), strict=True):
        sentence += sum(token.text in _SENTENCE_ENDS for token in doc[end : span[0]])
        phrase = _phrase(doc, span, sentence, end)
        if joined:
            comma = _separators(doc, end, span[0]) == ","
            last = phrases[-1]
            phrase = replace(phrase, joined=True, comma=comma, preposition=last.preposition, verb=last.verb)
        phrases.append(phrase)
        end = span[2]
    return phrases


def _word_runs(doc: Doc) -> list[tuple[int, int, int]]:
    """Return (start, head, end) of the longest runs of words that can stand in one noun phrase."""
    spans: list[tuple[int, int, int]] = []
    chunk_starts = {chunk.start for chunk in doc.noun_chunks} if doc.has_annotation("DEP") else set()
    i = 0
    while i < len(doc):
        if word_class(doc[i]) not in _INSIDE:
            i += 1
            continue
        start = i
        while i < len(doc) and (word_class(doc[i]) in _INSIDE or _continues(doc, start, i)):
            begins_chunk = i in chunk_starts and word_class(doc[i - 1]) in NOUNS
            if i > start and (begins_chunk or _begins_phrase(doc[i], doc[i - 1])):
                break
            i += 1
        heads = [k for k in range(start, i) if word_class(doc[k]) in NOUNS]
        if heads:
            head = heads[-1]
            if head + 1 < i and word_class(doc[head]) == "PROPN" and word_class(doc[head + 1]) == "NUM":
                head += 1  # a Boeing 747
            spans.append((start, head, head + 1))
    return spans


def _begins_phrase(token: Token, before: Token) -> bool:
    """Return whether a determiner or number starts a new phrase ("gives the dog a bone")."""
    return (word_class(token) == "DET" and word_class(before) in (*NOUNS, "ADJ")) or (
        word_class(token) == "NUM" and word_class(before) == "NOUN"
    )


def _continues(doc: Doc, start: int, i: int) -> bool:
    """Return whether doc[i] is the comma of "a dense, misty forest", the adverb of "a very old car" or a bracket."""
    if word_class(doc[start]) != "DET" or i + 1 >= len(doc):
        return False
    if doc[i].text in ("(", ")"):  # a (very) old car
        return word_class(doc[i - 1]) in ("DET", "ADJ", "ADV") and word_class(doc[i + 1]) in ("ADJ", "NOUN", "ADV")
    if word_class(doc[i]) == "ADV":
        before = doc[i - 2] if doc[i - 1].text == "(" else doc[i - 1]
        after = doc[i + 2] if doc[i + 1].text == ")" and i + 2 < len(doc) else doc[i + 1]
        return word_class(before) in ("DET", "ADJ") and word_class(after) in ("ADJ", "NOUN")
    return doc[i].text == "," and word_class(doc[i - 1]) == "ADJ" and word_class(doc[i + 1]) == "ADJ"


def _phrase(doc: Doc, span: tuple[int, int, int], sentence: int, earliest: int) -> Phrase:
    """Return the phrase of a run (start, head, end), read with what stands in front of it from token `earliest` on."""
    start, head, end = span
    i = start - 1
    while i >= earliest and word_class(doc[i]) in ("ADV", "SPACE", "PUNCT"):
        if doc[i].text in (",", *_SENTENCE_ENDS):
            break
        i -= 1
    preposition = ""
    if i >= earliest and word_class(doc[i]) in ("ADP", "SCONJ") and doc[i].lower_ in word_lists.PREPOSITIONS:
        preposition = doc[i].lower_
        i -= 1
        while i >= earliest and word_class(doc[i]) in ("ADP", "ADV", "PART"):
            if preposition in ("of", "from", "to") and doc[i].lower_ in _BEFORE_OF_OR_TO:
                preposition = "from" if doc[i].lower_ in ("out", "away") else "near"
            i -= 1
        if preposition in ("of", "to") and i >= earliest and doc[i].lower_ in ("next", "close", "adjacent"):
            preposition = "near"
    if doc[head].dep_ in ("nsubj", "nsubjpass"):
        preposition = ""
    elif not preposition and doc[head].dep_ == "pobj" and doc[head].head.lower_ in word_lists.PREPOSITIONS:
        preposition = doc[head].head.lower_
    verb = doc[i].lower_ if i >= earliest and word_class(doc[i]) in ("VERB", "AUX", "ADJ") else ""
    has_auxiliary = bool(verb) and i > earliest and word_class(doc[i - 1]) == "AUX"
    detached = any(word_class(token) in ("PUNCT", "SCONJ") for token in doc[earliest:start])
    return Phrase(start, head, end, preposition, False, False, verb, has_auxiliary, detached, sentence)


def _joined(doc: Doc, spans: list[tuple[int, int, int]]) -> list[bool]:
    """Return for each phrase whether it continues a list ("a dog, a cat and a bird").

    A comma alone needs an "and" further on; a phrase with a verb after it starts a clause of its own, unless all are
    the subject of that verb ("a dog and a cat play").
    """
    gaps = ["", *(_separators(doc, left[2], right[0]) for left, right in pairwise(spans))]
    joined = [False] * len(spans)
    and_follows = False
    for k in reversed(range(len(spans))):
        own_clause = _verb_at(doc, spans[k][2]) and not _begins_sentence(doc, spans[k - 1][0])
        joined[k] = bool(gaps[k]) and not own_clause and (gaps[k] != "," or and_follows)
        and_follows = and_follows if gaps[k] == "," else bool(gaps[k])
    return joined


def _verb_at(doc: Doc, i: int) -> bool:
    """Return whether the token is a verb, but not a participle."""
    return i < len(doc) and word_class(doc[i]) in ("VERB", "AUX") and not doc[i].text.endswith(("ing", "ed"))


def _begins_sentence(doc: Doc, start: int) -> bool:
    """Return whether no verb or preposition but "of" stands in front of a phrase in its sentence."""
    for token in reversed(doc[:start]):
        if token.text in _SENTENCE_ENDS:
            break
        if word_class(token) in ("VERB", "AUX", "ADP", "SCONJ") and token.lower_ != "of":
            return False
    return True


def _separators(doc: Doc, start: int, end: int) -> str:
    """Return the text between two phrases when it is only a comma, a slash or a conjunction, else ""."""
    between = [token for token in doc[start:end] if not token.is_space]
    lists = all(word_class(token) == "CCONJ" or token.text in (",", "/") for token in between)
    if lists and all(token.text == "," for token in between):
        return "," if between else ""
    return " ".join(token.text for token in between) if lists else ""
