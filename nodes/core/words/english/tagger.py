"""The rule-based part-of-speech tagger, for prompts where no spaCy model is installed.

Every word is looked up in our word lists and in WordNet's lists by part of speech (spacy-lookups-data); where a word
can be several, its neighbours decide, from left to right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import word_lists
from .word_forms import possible_tags

if TYPE_CHECKING:
    from spacy.tokens import Doc

_NUMBER = re.compile(r"[\W\d_]*|\d[\d.,]*\w{1,2}")
_ADJECTIVE_ENDINGS = (
    "y", "ic", "al", "ful", "ous", "ive", "ish", "less", "able", "ible", "ant", "ent", "an", "en", "ed", "ing",
)  # fmt: skip
# A word with such an ending is an adjective where it stands alone between commas, and an unknown one before a noun.
_ADJECTIVE_SUFFIXES = ("ent", "ous", "ic", "ive", "ish", "less", "ful", "esque", "inal", "ical", "like")
_LONGEST_CLAUSE = 40
_ISOLATED = frozenset({"PUNCT", "END"})


@dataclass(frozen=True)
class _OpenWord:
    """A word that can have several tags, with what stands around it.

    word, last_word, next_word: lower case, "" where there is none. choice: the tags it can have. tags: those of all
    words before it. after: the tags that the next word can have, END after the last word.
    """

    word: str
    last_word: str
    next_word: str
    choice: frozenset[str]
    tags: list[str]
    after: frozenset[str]

    @property
    def before(self) -> str:
        """The tag of the word in front, "" for none."""
        return self.tags[-1] if self.tags else ""

    @property
    def is_participle(self) -> bool:
        """Whether it ends like a participle (running, parked)."""
        return self.word.endswith(("ing", "ed")) and self.word not in word_lists.BASE_FORMS

    @property
    def noun_phrase_follows(self) -> bool:
        """Whether what comes next can go on with the noun phrase that the word is in."""
        participle = self.next_word.endswith("ing") and self.next_word in word_lists.COMMON_VERBS
        return bool(self.after & {"NOUN", "PROPN", "ADJ"}) and not self.after & {"ADP", "DET"} and not participle

    @property
    def in_noun_phrase(self) -> bool:
        """Whether what stands in front begins a noun phrase."""
        return self.before in ("DET", "NUM", "ADJ", "PART") or (self.before == "ADP" and self.last_word != "to")

    @property
    def alone(self) -> bool:
        """Whether the word stands alone between commas."""
        return self.before in ("", "PUNCT") and bool(self.after & _ISOLATED)


def tag(doc: Doc) -> Doc:
    """Set the part of speech of every token, in place, and return the same doc."""
    words = [token.lower_ for token in doc]
    options = [_options(token.text, token.lower_) for token in doc]
    for i in range(1, len(words)):
        if words[i] == "can" and "NOUN" in options[i - 1] and not (options[i + 1 : i + 2] or [_ISOLATED])[0] & {"VERB"}:
            options[i] = frozenset({"NOUN"})  # a trash can
    padded = ["", *words, ""]
    tags: list[str] = []
    following = [*options, frozenset({"END"})][1:]
    for i, (choice, after) in enumerate(zip(options, following, strict=True)):
        open_word = _OpenWord(padded[i + 1], padded[i], padded[i + 2], choice, tags, after)
        tags.append(next(iter(choice)) if len(choice) == 1 else _settle(open_word))
    for token, found in zip(doc, tags, strict=True):
        token.pos_ = found
    return doc


def _options(text: str, word: str) -> frozenset[str]:
    """Return the tags that a word can have, by itself. word: the text in lower case."""
    if _NUMBER.fullmatch(text):
        return frozenset({"NUM"} if text[:1].isdigit() else {"SPACE"} if text.isspace() else {"PUNCT"})
    if word in ("'s", "’s"):
        return frozenset({"PART"})
    tags = possible_tags(word)
    if tags:
        return tags
    if text[:1].isupper():
        return frozenset({"PROPN"})
    if word.endswith("ly"):
        return frozenset({"ADV"})
    if word.endswith(("ing", "ed")) and len(word) > 5:
        return frozenset({"VERB", "ADJ"})
    if "-" in word:
        last = possible_tags(word.rsplit("-", 1)[-1])
        return last or frozenset({"NOUN", "ADJ"})
    return frozenset({"NOUN", "ADJ"} if word.endswith(_ADJECTIVE_SUFFIXES) else {"NOUN"})


def _settle(w: _OpenWord) -> str:
    """Choose between the possible tags of a word by what stands before and after it."""
    adjective_form = w.word in word_lists.ADJECTIVE_FORMS
    if {"NOUN", "VERB"} <= w.choice and w.next_word == "of" and not (adjective_form or w.word.endswith(("ing", "ed"))):
        return "NOUN"
    if "ADJ" in w.choice and (_is_separate_adjective(w) or _is_common_adjective(w)):
        return "ADJ"
    if "VERB" in w.choice and w.is_participle:
        return _settle_participle(w)
    if "ADV" in w.choice and (
        (w.before in ("VERB", "NOUN", "PROPN", "") and "ADP" in w.after) or (w.before == "VERB" and w.after & _ISOLATED)
    ):
        return "ADV"
    if w.in_noun_phrase:
        return _settle_nominal(w)
    if "VERB" in w.choice and w.before in ("NOUN", "PROPN", "PRON", "AUX", "ADV", "NUM"):
        return _settle_predicate(w)
    if "VERB" in w.choice and w.before in ("", "PUNCT", "SCONJ", "CCONJ", "SPACE"):
        return _settle_start(w)
    return _settle_nominal(w)


def _is_separate_adjective(w: _OpenWord) -> bool:
    """Return whether a word alone between commas ends like an adjective ("cozy, dark, majestic")."""
    return w.alone and w.word.endswith(_ADJECTIVE_SUFFIXES)


def _is_common_adjective(w: _OpenWord) -> bool:
    """Return whether a frequent adjective stands where an adjective can."""
    if w.word not in word_lists.ADJECTIVE_FORMS:
        return False
    qualifies = w.noun_phrase_follows and not (w.word == "light" and w.before == "NOUN")
    predicate = (w.before == "VERB" and "ADV" not in w.choice) or (w.before in ("ADJ", "ADV") and w.after & _ISOLATED)
    return bool(qualifies or w.alone or predicate or "NOUN" not in w.choice)


def _settle_participle(w: _OpenWord) -> str:
    """-ing and -ed: a verb after a noun, an adjective in front of one, a noun at the end of a phrase (a painting)."""
    if w.before in ("NOUN", "PROPN"):
        ends = w.after & _ISOLATED and w.word not in word_lists.COMMON_VERBS
        return "NOUN" if "NOUN" in w.choice and (ends or w.word in word_lists.PICTURE_NOUNS) else "VERB"
    if w.before in ("PRON", "AUX", "SCONJ", "CCONJ", "ADV"):
        return "VERB"
    if w.noun_phrase_follows:
        return "ADJ"
    if w.in_noun_phrase and "NOUN" in w.choice:
        return "NOUN"
    return "ADJ" if w.in_noun_phrase and "ADJ" in w.choice else "VERB"


def _settle_nominal(w: _OpenWord) -> str:
    """Inside a noun phrase: adjective in front of more of it, else noun."""
    adjective = w.noun_phrase_follows and ("NOUN" not in w.choice or w.word.endswith(_ADJECTIVE_ENDINGS))
    if "NOUN" in w.choice and not ("ADJ" in w.choice and adjective):
        return "NOUN"
    if "ADJ" in w.choice:
        return "ADJ"
    return "VERB" if "VERB" in w.choice else sorted(w.choice)[0]


def _settle_predicate(w: _OpenWord) -> str:
    """After a noun or pronoun: a verb when the form agrees and an object, an adverbial or the end follows."""
    if w.before in ("PRON", "AUX"):
        return "VERB" if w.before == "PRON" or "NOUN" not in w.choice or w.word in word_lists.PARTICIPLES else "NOUN"
    if "NOUN" not in w.choice and "ADJ" not in w.choice:
        return "VERB"
    known = w.word in word_lists.COMMON_VERBS
    third_person = _is_s_form(w.word)
    if "DET" in w.after and (third_person or _is_s_form(w.last_word) or known):
        return "VERB"
    if w.word in word_lists.NOUN_FORMS:
        return "NOUN"
    clause = w.tags[_clause_start(w.tags) :]
    two_subjects = "CCONJ" in clause[1:] and "ADP" not in clause
    plural = _is_s_form(w.last_word) or w.last_word in word_lists.PLURALS or two_subjects
    agrees = third_person != plural or w.before == "ADV"
    # "teenagers skateboard down a street": a plural hardly ever stands in front of another noun
    after_plural = plural and w.before == "NOUN" and w.last_word not in word_lists.QUALIFYING_PLURALS
    if after_plural and agrees and not {"CCONJ", "VERB"} & {*clause} and w.after & {"ADP", "ADV"}:
        return "VERB"
    verb_before = "VERB" in clause or "AUX" in clause
    continues = bool(w.after & {"ADP", "DET", "ADV", "PRON", "NUM"})
    ends = bool(w.after & {"END", "PUNCT", "CCONJ", "SCONJ"})
    if agrees and known and (continues or ends or not verb_before):
        return "VERB"
    # "a vase filled with roses stands on": the subject of the verb is not the noun in front of it
    if (third_person and known and continues and "ADP" in clause) or w.word in word_lists.PARTICIPLES:
        return "VERB"
    has_subject = "DET" in clause and w.before == "NOUN"
    if third_person and agrees and not verb_before and (continues or (has_subject and w.after & {"NOUN", "ADJ"})):
        return "VERB"
    return "NOUN" if "NOUN" in w.choice else "ADJ"


def _is_s_form(word: str) -> bool:
    """Return whether a word ends like a plural or a verb in the third person."""
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def _clause_start(tags: list[str]) -> int:
    start = len(tags)
    while start and tags[start - 1] not in ("SCONJ", "PUNCT") and len(tags) - start < _LONGEST_CLAUSE:
        start -= 1
    return start


def _settle_start(w: _OpenWord) -> str:
    """At the start of a clause: an order (draw a dog) or a second predicate (and holds a book), else a noun phrase."""
    second_predicate = w.before == "CCONJ" and "VERB" in w.tags
    if "DET" in w.after and (second_predicate or not w.tags):
        return "VERB"
    return _settle_nominal(w)
