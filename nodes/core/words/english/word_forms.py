"""Which parts of speech a word can be, by our lists and by WordNet's (spacy-lookups-data), and its singular."""

from __future__ import annotations

from functools import lru_cache

from . import word_lists


@lru_cache(maxsize=1)
def _wordnet_tables() -> tuple[dict[str, list[str]], dict[str, dict[str, list[str]]]]:
    """WordNet's words by part of speech, and its irregular forms with what each is a form of."""
    from spacy.lookups import load_lookups

    tables = load_lookups("en", ["lemma_index", "lemma_exc"])
    return tables.get_table("lemma_index"), tables.get_table("lemma_exc")


def wordnet_nouns() -> list[str]:
    """Return WordNet's nouns in the order of their last letters: those that end alike often mean things of one kind."""
    index, _ = _wordnet_tables()
    return sorted(set(index["noun"]), key=lambda word: word[::-1])


@lru_cache(maxsize=1)
def _wordnet_lists() -> dict[str, frozenset[str]]:
    """WordNet's words, with their irregular forms, by part of speech."""
    index, irregular = _wordnet_tables()
    lists = {pos: frozenset(index[pos]) | frozenset(irregular[pos]) for pos in ("noun", "verb", "adv")}
    return {**lists, "adj": frozenset(index["adj"])}  # its irregular forms take nouns in -er for comparatives


@lru_cache(maxsize=4096)
def possible_tags(word: str) -> frozenset[str]:
    """Return the parts of speech that a lower-case word can be, by spaCy's names; none when it is unknown.

    Either one of the closed classes (determiners, prepositions and the like, which get no new words), or some of NOUN,
    VERB, ADJ and ADV.
    """
    closed = _closed_class(word)
    if closed:
        return frozenset({closed})
    lists = _wordnet_lists()
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
        tags.discard("ADJ")  # a player is not somebody more "play"
    if word in word_lists.NOUN_FORMS and word not in word_lists.ADJECTIVE_FORMS:
        tags = {"NOUN"} | (tags & {"VERB"})
    return frozenset(tags)


@lru_cache(maxsize=4096)
def noun_stems(word: str) -> tuple[str, ...]:
    """Return the words that a lower-case noun can be the plural of, then the noun itself."""
    irregular = _wordnet_tables()[1]["noun"].get(word, ())
    return (*irregular, *_stems(word, ("s", "ies:y", "ves:f", "ves:fe", "es"))[1:], word)


def _closed_class(word: str) -> str:
    """Return the closed class that a word belongs to, "" for none."""
    for tag, words in (
        ("DET", word_lists.DETERMINERS),
        ("CCONJ", word_lists.CONJUNCTIONS),
        ("AUX", word_lists.AUXILIARIES),
        ("ADP", word_lists.PREPOSITIONS),
        ("PRON", word_lists.PRONOUNS),
        ("SCONJ", word_lists.SUBORDINATORS),
        ("NUM", word_lists.NUMBERS),
        ("ADV", word_lists.ADVERBS),
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
