"""All words of a prompt: which are there, their numbers and their tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.prompt_words import MOST_WORDS, other_words
from explainable_latents.nodes.core.words.subjects import Subjects
from explainable_latents.nodes.core.words.tokens import TokenSpan


def read(prompt: str, override: str = "") -> Subjects:
    """Every letter is a token of an encoder "l", at the position after its place in the prompt."""
    tokens = {"l": tuple(TokenSpan(i + 1, i, i + 1) for i, letter in enumerate(prompt) if letter.isalnum())}
    return parse(prompt, tokens, override, "rules")


def test_words_without_a_role_are_the_others():
    prompt = "a (red:1.2) dog on the beach, (big\\)"
    words = other_words(read(prompt))
    assert [(word.label, word.role) for word in words] == [(each, "other") for each in ("a", "red", "on", "the", "big")]
    assert [prompt[slice(*word.span)] for word in words] == ["a", "red", "on", "the", "big"]
    assert [word.positions() for word in words[:2]] == [(1,), (4, 5, 6)]


def test_a_word_that_is_named_to_be_nothing_is_one_of_them_and_a_phrase_takes_its_words():
    subjects = read("a small dog and a ball", "small dog, not: ball")
    assert subjects.labels == ("small dog",)
    assert [word.label for word in other_words(subjects)] == ["a#1", "and", "a#2", "ball"]


def test_words_that_are_alike_are_numbered_as_the_override_counts_them():
    subjects = read("a dog, a Dog-house, a (Dog:1.2) and a hot dog", "dog#3, scene: a#3, hot dog")
    assert subjects.labels == ("a#3", "Dog#3", "hot dog")
    assert [item.text for item in subjects.items] == ["a", "Dog", "hot dog"]
    assert [word.label for word in other_words(subjects)] == ["a#1", "dog#1", "a#2", "Dog-house", "and", "a#4"]
    assert read("a dog and a cat").labels == ("dog", "cat")


def test_without_an_encoder_there_are_none_and_of_a_long_prompt_the_first():
    assert other_words(parse("a dog on the beach", {}, "", "rules")) == ()
    words = other_words(read("very " * (MOST_WORDS + 5) + "dog"))
    assert len(words) == MOST_WORDS
    assert words[-1].label == f"very#{MOST_WORDS}"


@given(st.text(alphabet="ab ,(:1.)\n", max_size=30))
def test_a_label_with_a_number_names_that_very_word(prompt: str):
    try:
        subjects = read(prompt)
    except ValueError:
        return  # a prompt that the node refuses
    for word in (*subjects.items, *other_words(subjects)):
        if word.number:
            assert word.span in [item.span for item in read(prompt, word.label).items], word
