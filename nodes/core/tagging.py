"""The rule-based part-of-speech tagger: the component of the blank English pipeline.

Every word is looked up in closed-class lists and in WordNet's word lists by part of speech (spacy-lookups-data); what
is still open is settled by context, left to right.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

from . import grammar, lexicon

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
_LONGEST_CLAUSE = 40
_ISOLATED = frozenset({"PUNCT", "END"})


@lru_cache(maxsize=1)
def _word_lists() -> dict[str, frozenset[str]]:
    from spacy.lookups import load_lookups

    tables = load_lookups("en", ["lemma_index", "lemma_exc"])
    index, irregular = tables.get_table("lemma_index"), tables.get_table("lemma_exc")
    lists = {pos: frozenset(index[pos]) | frozenset(irregular[pos]) for pos in ("noun", "verb", "adv")}
    return {**lists, "adj": frozenset(index["adj"])}  # its irregular forms take nouns in -er for comparatives


@lru_cache(maxsize=4096)
def possible_tags(word: str) -> frozenset[str]:
    """Return what a lower-case word can be: of NOUN, VERB, ADJ, ADV and the closed classes; empty when unknown."""
    closed = _closed_class(word)
    if closed:
        return frozenset({closed})
    lists = _word_lists()
    tags = set()
    if any(form in lists["noun"] for form in _stems(word, ("s", "es", "ies:y", "ves:f"))):
        tags.add("NOUN")
    if any(form in lists["verb"] for form in _stems(word, ("s", "es", "ies:y", "ed", "ed:e", "ing", "ing:e", "ied:y"))):
        tags.add("VERB")
    if any(form in lists["adj"] for form in _stems(word, ("er", "er:e", "est", "est:e", "iest:y", "ier:y"))):
        tags.add("ADJ")
    if word in lists["adv"]:
        tags.add("ADV")
    if word in lists["noun"] and word not in lists["adj"]:
        tags.discard("ADJ")  # a player is not more "play"
    if word in grammar.NOUN_FORMS and word not in grammar.ADJECTIVE_FORMS:
        tags = {"NOUN"} | (tags & {"VERB"})
    return frozenset(tags)


def _closed_class(word: str) -> str:
    for tag, words in (
        ("DET", grammar.DETERMINERS),
        ("CCONJ", grammar.CONJUNCTIONS),
        ("AUX", grammar.AUXILIARIES),
        ("ADP", grammar.PREPOSITIONS),
        ("PRON", grammar.PRONOUNS),
        ("SCONJ", grammar.SUBORDINATORS),
        ("NUM", grammar.NUMBERS),
        ("ADV", grammar.ADVERBS),
    ):
        if word in words:
            return tag
    return ""


def _stems(word: str, endings: tuple[str, ...]) -> list[str]:
    """Return the word and what is left of it without each ending ("ies:y": y in its place; doubled letters undone)."""
    stems = [word]
    for ending in endings:
        cut, _, put = ending.partition(":")
        if word.endswith(cut) and len(word) > len(cut) + 1:
            stem = word[: -len(cut)]
            stems.append(stem + put)
            if cut in ("ed", "ing") and not put and stem[-1] == stem[-2:-1]:
                stems.append(stem[:-1])
    return stems


def tag(doc: Doc) -> Doc:
    """Set the tag of every token; the rule-based component of the blank pipeline."""
    words = [token.lower_ for token in doc]
    options = [_options(token.text, token.lower_) for token in doc]
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
    return frozenset(
        {"NOUN", "ADJ"} if word.endswith(("ent", "ous", "ic", "ive", "ish", "less", "ful", "esque")) else {"NOUN"}
    )


def _settle(words: list[str], options: list[frozenset[str]], tags: list[str], i: int, before: str) -> str:
    """Choose between the possible tags of word i by what stands before and after it."""
    word, choice = words[i], options[i]
    after = options[i + 1] if i + 1 < len(options) else frozenset({"END"})
    participle_follows = words[i + 1 : i + 2] and words[i + 1].endswith("ing") and words[i + 1] in grammar.COMMON_VERBS
    nominal_follows = bool(after & {"NOUN", "PROPN", "ADJ"}) and not after & {"ADP", "DET"} and not participle_follows
    in_phrase = before in ("DET", "NUM", "ADJ", "PART") or (before == "ADP" and words[i - 1] != "to")
    alone = before in ("", "PUNCT") and bool(after & _ISOLATED)
    if "ADJ" in choice and word in grammar.ADJECTIVE_FORMS and (nominal_follows or alone or "NOUN" not in choice):
        return "ADJ"
    if word.endswith(("ing", "ed")) and "VERB" in choice:
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


def _settle_participle(
    word: str, choice: frozenset[str], before: str, in_phrase: bool, nominal_follows: bool, after: frozenset[str]
) -> str:
    """-ing and -ed: a verb after a noun, an adjective in front of one, a noun at the end of a phrase (a painting)."""
    if before in ("NOUN", "PROPN", "PRON", "AUX", "SCONJ", "CCONJ", "ADV"):
        ends = after & _ISOLATED and word not in grammar.COMMON_VERBS
        return (
            "NOUN" if before in ("NOUN", "PROPN") and "NOUN" in choice and (ends or word in lexicon.FRAMES) else "VERB"
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
        return "VERB" if before == "PRON" or "NOUN" not in choice else "NOUN"
    if "NOUN" not in choice and "ADJ" not in choice:
        return "VERB"
    if after & {"DET"} and (_is_s_form(word) or word in grammar.COMMON_VERBS):
        return "VERB"
    if word in grammar.NOUN_FORMS:
        return "NOUN"
    clause = tags[_clause_start(tags) :]
    plural = (
        _is_s_form(words[i - 1]) or words[i - 1] in grammar.PLURALS or ("CCONJ" in clause[1:] and "ADP" not in clause)
    )
    third_person = _is_s_form(word)
    agrees = third_person != plural or before == "ADV"
    known = word in grammar.COMMON_VERBS
    verb_before = "VERB" in clause or "AUX" in clause
    continues = bool(after & {"ADP", "DET", "ADV", "PRON", "NUM"})
    ends = bool(after & {"END", "PUNCT", "CCONJ", "SCONJ"})
    if agrees and known and (continues or ends or not verb_before):
        return "VERB"
    # "a vase filled with roses stands on": the subject of the verb is not the noun in front of it
    if (third_person and known and continues and "ADP" in clause) or word in grammar.PARTICIPLES:
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
