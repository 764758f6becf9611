"""Noun phrases, their heads and the prepositions in front of them."""

from __future__ import annotations

import pytest
from spacy.tokens import Doc

from explainable_latents.nodes.core.words.english.noun_phrases import find_phrases
from explainable_latents.nodes.core.words.english.pipeline import rules_pipeline


def described(text: str) -> list[str]:
    doc = rules_pipeline()(text)
    return [f"{phrase.preposition or '-'} {doc[phrase.start : phrase.end]}" for phrase in find_phrases(doc)]


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("a small white dog on the beach", ["- a small white dog", "on the beach"]),
        ("a dog, a cat and a bird in a tree", ["- a dog", "- a cat", "- a bird", "in a tree"]),
        ("on a hill and a beach", ["on a hill", "on a beach"]),
        ("on the beach, a dog runs", ["on the beach", "- a dog"]),
        ("a dense, misty forest", ["- a dense, misty forest"]),
        ("a very old car", ["- a very old car"]),
        ("a castle next to a river", ["- a castle", "near a river"]),
        ("a whale leaps out of the water", ["- a whale", "from the water"]),
        ("a Boeing 747", ["- a Boeing 747"]),
        ("gives the dog a bone", ["- the dog", "- a bone"]),
        ("the dog's toy", ["- the dog's toy"]),
    ],
)
def test_phrases(text, phrases):
    assert described(text) == phrases


def test_what_stands_around_a_phrase():
    doc = rules_pipeline()("A lake is filled with boats. A field covered with snow, and a dog")
    lake, boats, field, snow, dog = find_phrases(doc)
    assert (boats.verb, boats.has_auxiliary, boats.sentence) == ("filled", True, 0)
    assert (snow.verb, snow.has_auxiliary, snow.sentence) == ("covered", False, 1)
    assert (lake.detached, field.detached, dog.detached) == (False, True, True)
    assert dog.joined
    assert dog.preposition == "with"


def test_a_models_dependencies_overrule_the_order_of_words():
    words = ["in", "a", "park", "dogs", "play"]
    tags = ["ADP", "DET", "NOUN", "NOUN", "VERB"]
    vocab = rules_pipeline().vocab
    flat = Doc(vocab, words, pos=tags)
    parsed = Doc(vocab, words, pos=tags, heads=[4, 2, 0, 4, 4], deps=["prep", "det", "pobj", "nsubj", "ROOT"])
    assert [str(flat[phrase.start : phrase.end]) for phrase in find_phrases(flat)] == ["a park dogs"]
    phrases = find_phrases(parsed)
    assert [(str(parsed[p.start : p.end]), p.preposition) for p in phrases] == [("a park", "in"), ("dogs", "")]


def test_possessives_and_participles_of_a_model_stay_in_their_phrase():
    words = ["a", "man", "on", "his", "burning", "horse"]
    tags = ["DET", "NOUN", "ADP", "PRON", "VERB", "NOUN"]
    deps = ["det", "ROOT", "prep", "poss", "amod", "pobj"]
    doc = Doc(rules_pipeline().vocab, words, pos=tags, heads=[1, 1, 1, 5, 5, 2], deps=deps)
    assert [(str(doc[p.start : p.end]), p.preposition) for p in find_phrases(doc)] == [
        ("a man", ""),
        ("his burning horse", "on"),
    ]
