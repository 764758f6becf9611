"""The rule-based part-of-speech tagger, for prompts where no spaCy model is installed.

Every word is looked up in closed-class lists and in WordNet's word lists by part of speech (spacy-lookups-data); what
is still open is settled by context, left to right.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from . import word_lists
from .word_forms import possible_tags

if TYPE_CHECKING:
    from spacy.tokens import Doc

_NUMBER = re.compile(r"[\W\d_]*|\d[\d.,]*\w{1,2}")
_ADJECTIVE_ENDINGS = (
    "y",
    "ic",
    "al",
    "ful",
    "ous",
    "ive",
    "ish",
    "less",
    "able",
    "ible",
    "ant",
    "ent",
    "an",
    "en",
    "ed",
    "ing",
)
# A word with such an ending is an adjective where it stands alone between commas, and an unknown one before a noun.
_ADJECTIVE_SUFFIXES = ("ent", "ous", "ic", "ive", "ish", "less", "ful", "esque", "inal", "ical", "like")
_LONGEST_CLAUSE = 40
_ISOLATED = frozenset({"PUNCT", "END"})


def tag(doc: Doc) -> Doc:
    """Set the part of speech of every token, in place, and return the same doc."""
    words = [token.lower_ for token in doc]
    options = [_options(token.text, token.lower_) for token in doc]
    for i in range(1, len(words)):
        if words[i] == "can" and "NOUN" in options[i - 1] and not (options[i + 1 : i + 2] or [_ISOLATED])[0] & {"VERB"}:
            options[i] = frozenset({"NOUN"})  # a trash can
    tags: list[str] = []
    for i, choice in enumerate(options):
        before = tags[i - 1] if i else ""
        tags.append(next(iter(choice)) if len(choice) == 1 else _settle(words, options, tags, i, before))
    for token, found in zip(doc, tags, strict=True):
        token.pos_ = found
    return doc


def _options(text: str, word: str) -> frozenset[str]:
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


def _settle(words: list[str], options: list[frozenset[str]], tags: list[str], i: int, before: str) -> str:
    """Choose between the possible tags of word i by what stands before and after it."""
    word, choice = words[i], options[i]
    if (
        {"NOUN", "VERB"} <= choice
        and word not in word_lists.ADJECTIVE_FORMS
        and words[i + 1 : i + 2] == ["of"]
        and not word.endswith(("ing", "ed"))
    ):
        return "NOUN"
    after = options[i + 1] if i + 1 < len(options) else frozenset({"END"})
    participle_follows = (
        words[i + 1 : i + 2] and words[i + 1].endswith("ing") and words[i + 1] in word_lists.COMMON_VERBS
    )
    nominal_follows = bool(after & {"NOUN", "PROPN", "ADJ"}) and not after & {"ADP", "DET"} and not participle_follows
    in_phrase = before in ("DET", "NUM", "ADJ", "PART") or (before == "ADP" and words[i - 1] != "to")
    alone = before in ("", "PUNCT") and bool(after & _ISOLATED)
    if alone and "ADJ" in choice and word.endswith(_ADJECTIVE_SUFFIXES):
        return "ADJ"
    if (
        "ADJ" in choice
        and word in word_lists.ADJECTIVE_FORMS
        and (
            (nominal_follows and not (word == "light" and before == "NOUN"))
            or alone
            or (before == "VERB" and "ADV" not in choice)
            or (before in ("ADJ", "ADV") and after & _ISOLATED)
            or "NOUN" not in choice
        )
    ):
        return "ADJ"
    if "VERB" in choice and _is_participle(word):
        return _settle_participle(word, choice, before, in_phrase, nominal_follows, after)
    if "ADV" in choice and (
        (before in ("VERB", "NOUN", "PROPN", "") and "ADP" in after) or (before == "VERB" and after & _ISOLATED)
    ):
        return "ADV"
    if in_phrase:
        return _settle_nominal(word, choice, nominal_follows, after)
    if "VERB" in choice and before in ("NOUN", "PROPN", "PRON", "AUX", "ADV", "NUM"):
        return _settle_predicate(words, tags, i, choice, before, after)
    if "VERB" in choice and before in ("", "PUNCT", "SCONJ", "CCONJ", "SPACE"):
        return _settle_start(word, choice, tags, after, nominal_follows)
    if "NOUN" in choice or "ADJ" in choice:
        return _settle_nominal(word, choice, nominal_follows, after)
    return "VERB" if "VERB" in choice else sorted(choice)[0]


def _is_participle(word: str) -> bool:
    return word.endswith(("ing", "ed")) and word not in word_lists.BASE_FORMS


def _settle_participle(
    word: str, choice: frozenset[str], before: str, in_phrase: bool, nominal_follows: bool, after: frozenset[str]
) -> str:
    """-ing and -ed: a verb after a noun, an adjective in front of one, a noun at the end of a phrase (a painting)."""
    if before in ("NOUN", "PROPN", "PRON", "AUX", "SCONJ", "CCONJ", "ADV"):
        ends = after & _ISOLATED and word not in word_lists.COMMON_VERBS
        return (
            "NOUN"
            if before in ("NOUN", "PROPN") and "NOUN" in choice and (ends or word in word_lists.PICTURE_NOUNS)
            else "VERB"
        )
    if nominal_follows:
        return "ADJ"
    if in_phrase and "NOUN" in choice:
        return "NOUN"
    return "ADJ" if in_phrase and "ADJ" in choice else "VERB"


def _settle_nominal(word: str, choice: frozenset[str], nominal_follows: bool, after: frozenset[str]) -> str:
    """Inside a noun phrase: adjective in front of more of it, else noun."""
    adjective = nominal_follows and ("NOUN" not in choice or word.endswith(_ADJECTIVE_ENDINGS))
    if "NOUN" in choice and not ("ADJ" in choice and adjective):
        return "NOUN"
    if "ADJ" in choice:
        return "ADJ"
    return "VERB" if "VERB" in choice else sorted(choice)[0]


def _settle_predicate(
    words: list[str], tags: list[str], i: int, choice: frozenset[str], before: str, after: frozenset[str]
) -> str:
    """After a noun or pronoun: a verb when the form agrees and an object, an adverbial or the end follows."""
    word = words[i]
    if before in ("PRON", "AUX"):
        return "VERB" if before == "PRON" or "NOUN" not in choice or word in word_lists.PARTICIPLES else "NOUN"
    if "NOUN" not in choice and "ADJ" not in choice:
        return "VERB"
    if after & {"DET"} and (_is_s_form(word) or _is_s_form(words[i - 1]) or word in word_lists.COMMON_VERBS):
        return "VERB"
    if word in word_lists.NOUN_FORMS:
        return "NOUN"
    clause = tags[_clause_start(tags) :]
    plural = (
        _is_s_form(words[i - 1])
        or words[i - 1] in word_lists.PLURALS
        or ("CCONJ" in clause[1:] and "ADP" not in clause)
    )
    third_person = _is_s_form(word)
    agrees = third_person != plural or before == "ADV"
    known = word in word_lists.COMMON_VERBS
    # "teenagers skateboard down a street": a plural hardly ever qualifies another noun
    qualifies = words[i - 1] in word_lists.QUALIFYING_PLURALS
    if (
        plural
        and agrees
        and before == "NOUN"
        and not qualifies
        and not {"CCONJ", "VERB"} & {*clause}
        and after & {"ADP", "ADV"}
    ):
        return "VERB"
    verb_before = "VERB" in clause or "AUX" in clause
    continues = bool(after & {"ADP", "DET", "ADV", "PRON", "NUM"})
    ends = bool(after & {"END", "PUNCT", "CCONJ", "SCONJ"})
    if agrees and known and (continues or ends or not verb_before):
        return "VERB"
    # "a vase filled with roses stands on": the subject of the verb is not the noun in front of it
    if (third_person and known and continues and "ADP" in clause) or word in word_lists.PARTICIPLES:
        return "VERB"
    opened = "DET" in clause and before == "NOUN"
    if third_person and agrees and not verb_before and (continues or (opened and after & {"NOUN", "ADJ"})):
        return "VERB"
    return _settle_nominal(word, choice, False, after)


def _is_s_form(word: str) -> bool:
    return word.endswith("s") and not word.endswith(("ss", "us", "is"))


def _clause_start(tags: list[str]) -> int:
    start = len(tags)
    while start and tags[start - 1] not in ("SCONJ", "PUNCT") and len(tags) - start < _LONGEST_CLAUSE:
        start -= 1
    return start


def _settle_start(
    word: str, choice: frozenset[str], tags: list[str], after: frozenset[str], nominal_follows: bool
) -> str:
    """At the start of a clause: an order (draw a dog) or a second predicate (and holds a book), else a noun phrase."""
    predicate = tags[-1:] == ["CCONJ"] and "VERB" in tags
    if "DET" in after and ("VERB" in choice) and (predicate or not tags):
        return "VERB"
    return _settle_nominal(word, choice, nominal_follows, after)
