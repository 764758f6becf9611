"""Syntax of other programs in a prompt: read for what it stands for, and named as what ComfyUI does not interpret."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.english.foreign_syntax import WILDCARD_WORD, remove_foreign_syntax
from explainable_latents.nodes.core.words.parsing import parse, table


@pytest.mark.parametrize(
    ("typed", "read", "foreign"),
    [
        ("a dog <lora:detail:1>", "a dog", ["<lora:detail:1>"]),
        ("a dog BREAK a cat", "a dog . a cat", ["BREAK"]),
        ("a dog AND a cat :0.7", "a dog and a cat ,", ["AND", ":0.7"]),
        ("[a bear:a wolf:0.5] runs", "a bear and a wolf runs", ["[a bear:a wolf:0.5]"]),
        ("a field [of wheat::0.4]", "a field of wheat", ["[of wheat::0.4]"]),
        ("a dog [with a hat:0.3]", "a dog with a hat", ["[with a hat:0.3]"]),
        ("{knight|wizard}", "knight and wizard", ["{knight|wizard}"]),
        ("a [cat|dog]", "a cat and dog", ["[cat|dog]"]),
        ("a __animal__", f"a {WILDCARD_WORD}", ["__animal__"]),
        ("a car --ar 3:2 --no people", "a car", ["--ar 3:2 --no people"]),
        ("/imagine prompt: a car", "a car", ["/imagine prompt:"]),
        ("a dog::2 a cat::1", "a dog, a cat,", ["::2", "::1"]),
        ("dog:1.3, cat", "dog, , cat", [":1.3"]),
        ("a dog Negative prompt: blurry\nSteps: 20", "a dog", ["Negative prompt: blurry\nSteps: 20"]),
        ("red hair,4k,hat", "red hair, 4k, hat", []),
        ("1girl, :d, rating:safe, hat", "1girl, , , hat", []),
        ("Subject: a dog", "a dog", []),
        ("1,000 dogs at 10:30, 3:2", "1,000 dogs at 10:30, 3:2", []),
        ("A DOG AND A CAT", "A DOG AND A CAT", []),
    ],
)
def test_what_is_read_and_what_comfyui_does_not_interpret(typed, read, foreign):
    cleaned = remove_foreign_syntax(typed)
    assert " ".join(cleaned.text.split()).replace(" ,", ",") == read.replace(" ,", ",")
    assert list(cleaned.foreign) == foreign


@given(st.text(alphabet="ab ,.:|[]{}<>_-1/BREAK\n", max_size=50))
def test_every_word_that_is_read_was_typed_where_it_says(typed):
    cleaned = remove_foreign_syntax(typed)
    assert len(cleaned.origin) == len(cleaned.text)
    assert list(cleaned.origin) == sorted(cleaned.origin)
    for character, index in zip(cleaned.text, cleaned.origin, strict=True):
        assert character == typed[index] or character in f" ,.and{WILDCARD_WORD}"


def test_a_long_run_of_marks_is_read_at_once():
    for mark in ("[", "{|", "__", "<a:", "1:", "::1", "-- ", ":d,", "a|"):
        typed = mark * (9_000 // len(mark))
        cleaned = remove_foreign_syntax(typed)
        kept = [typed[index] for index in cleaned.origin]
        assert all(a == b or a in f" ,.and{WILDCARD_WORD}" for a, b in zip(cleaned.text, kept, strict=True)), mark


def test_the_node_says_first_what_comfyui_does_not_interpret():
    lines = table(parse("a dog <lora:detail:1> BREAK a {red|blue} cat", {}, parser="rules")).splitlines()
    assert lines[0].startswith("note: ComfyUI itself does not interpret <lora:detail:1>  BREAK  {red|blue};")
    assert "the browser picks one of {a|b}" in lines[1]
    assert lines[2] == "dog | subject | "
    assert table(parse("a dog", {}, parser="rules")).splitlines()[0] == "dog | subject | "


def test_spans_and_names_still_mean_the_prompt_as_typed():
    prompt = "<lora:x:1> a {knight|wizard} on the [hill:beach:0.5]"
    for item in parse(prompt, {}, parser="rules").items:
        assert prompt[slice(*item.span)] == item.text
    assert parse(prompt, {}, parser="rules").labels == ("knight", "wizard", "hill", "beach")
    assert parse(prompt, {}, "lora", "rules").labels == ("lora", "hill", "beach")
