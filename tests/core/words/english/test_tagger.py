"""The rule-based tagger: one test for each kind of context that settles a word."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.english.pipeline import rules_pipeline
from explainable_latents.nodes.core.words.english.word_forms import possible_tags


def tags(text: str) -> str:
    return " ".join(token.pos_ for token in rules_pipeline()(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a run on the beach", "DET NOUN ADP DET NOUN"),  # noun and verb after a determiner
        ("a dog runs", "DET NOUN VERB"),
        ("two dogs run fast", "NUM NOUN VERB ADV"),
        ("a red car", "DET ADJ NOUN"),  # an adjective before a noun
        ("a woman in red", "DET NOUN ADP NOUN"),
        ("a man riding a horse", "DET NOUN VERB DET NOUN"),  # -ing after a noun
        ("a running horse", "DET ADJ NOUN"),  # -ing before a noun
        ("an oil painting of a cat", "DET NOUN NOUN ADP DET NOUN"),  # -ing at the end of a phrase
        ("a parked car", "DET ADJ NOUN"),
        ("a car parked here", "DET NOUN VERB ADV"),
        ("a football player kicks the ball", "DET NOUN NOUN VERB DET NOUN"),
        ("french fries on a plate", "NOUN NOUN ADP DET NOUN"),  # a plural that looks like a verb
        ("draw a dog", "VERB DET NOUN"),  # an order
        ("a bear and a wolf fight", "DET NOUN CCONJ DET NOUN VERB"),  # agreement with two
        ("An eagle soars", "DET NOUN VERB"),
        ("Gandalf smiles", "PROPN VERB"),
        ("a well-dressed man", "DET ADJ NOUN"),
        ("1girl, 4k, 1950s", "NOUN PUNCT NUM PUNCT NUM"),
        ("cozy, dark", "ADJ PUNCT ADJ"),
        ("blorptastic zibble", "ADJ NOUN"),
        ("🦒 !!", "PUNCT PUNCT PUNCT"),
    ],
)
def test_tags(text, expected):
    assert tags(text) == expected


def test_possible_tags_know_inflected_forms():
    assert "VERB" in possible_tags("running")
    assert possible_tags("foxes") >= {"NOUN"}
    assert possible_tags("ponies") == {"NOUN"}
    assert possible_tags("wolves") >= {"NOUN"}
    assert "ADJ" in possible_tags("happiest")
    assert possible_tags("the") == {"DET"}
    assert possible_tags("zzyzx") == set()
