"""Chips: every word of a prompt once, under the name that the override knows it by."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.chips import MOST_WORDS, chips
from explainable_latents.nodes.core.words.parsing import parse


def made(prompt: str, override: str = "", extent: str = "head noun") -> list[dict]:
    return chips(parse(prompt, {}, override, "rules", extent), parse(prompt, {}, "", "rules", extent))


def test_words_in_order_with_the_parsers_roles():
    assert [(c["text"], c["role"]) for c in made("(dog:1.3) on the beach, <hr>")] == [
        ("dog", "subject"),
        ("on", ""),
        ("the", ""),
        ("beach", "scene"),
        ("hr", ""),
    ]


def test_occurrences_are_counted_as_the_override_counts_them():
    listed = [(c["text"], c["nth"], c["count"]) for c in made("dog-house, a Dog and a (dog)") if "og" in c["text"]]
    assert listed == [("dog-house", 1, 1), ("Dog", 2, 3), ("dog", 3, 3)]


def test_phrases_are_one_chip_unless_a_comma_separates_them():
    assert made("a small white dog", "", "whole phrase")[-1]["text"] == "small white dog"
    assert "," not in "".join(chip["text"] for chip in made("a big, red car", "", "whole phrase"))


def test_what_is_named_comes_before_what_is_found():
    listed = made("a red car on a road", "scene: car", "whole phrase")
    assert [chip["text"] for chip in listed] == ["a", "red", "car", "on", "a", "road"]


def test_an_embedding_is_one_word_and_nothing_is_no_word():
    assert [c["text"] for c in made("embedding:my_cat, 1girl")] == ["embedding:my_cat", "1girl"]
    assert made("") == []


def test_long_prompts_are_cut_but_not_their_subjects():
    listed = made("very " * (2 * MOST_WORDS) + "nice dog")
    assert len(listed) == MOST_WORDS + 1
    assert listed[-1]["text"] == "dog"


@given(st.text(alphabet="ab ,(:1.)'#\n", max_size=30))
def test_every_chip_can_be_named(prompt: str):
    try:
        listed = made(prompt)
    except ValueError:
        return  # a prompt that the node refuses
    for chip in listed:
        name = f"{chip['text']}#{chip['nth']}"
        assert chip["text"] in [item.text for item in parse(prompt, {}, name, "rules").items], name


@pytest.mark.parametrize("prompt", ["so so so", "a_b a_b"])
def test_repetitions(prompt: str):
    assert [c["nth"] for c in made(prompt)] == list(range(1, len(prompt.split()) + 1))


def test_things_that_are_mentioned_but_no_main_subject_are_left_out():
    prompt = "a girl with a kite on a hill"
    found, mentioned = (parse(prompt, {}, "", "rules", which=which) for which in ("main subject", "all things"))
    listed = chips(found, found, mentioned)
    assert [c["text"] for c in listed if c["left_out"]] == ["kite"]
    assert [c["text"] for c in listed if c["role"]] == ["girl", "hill"]
    named = parse(prompt, {}, "kite", "rules")
    assert [c["text"] for c in chips(named, found, mentioned) if c["left_out"]] == ["kite"]
    assert not any(c["left_out"] for c in made(prompt))


def test_named_words_are_chips_where_nothing_cuts_the_text_into_words():
    named = parse("หมาบนชายหาด", {}, "หมา", "rules")
    (chip,) = chips(named, parse("หมาบนชายหาด", {}, "", "rules"))
    assert (chip["text"], chip["nth"], chip["count"]) == ("หมา", 1, 1)
