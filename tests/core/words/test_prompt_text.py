"""Weight syntax and escapes of prompts, without ComfyUI."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.prompt_text import MAX_CHARACTERS, MAX_DEPTH, check_prompt, plain_text


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a dog", "a dog"),
        ("a (dog:1.3) here", "a dog here"),
        ("a (dog) here", "a dog here"),
        ("((red (dog:1.2)) hat:0.5)", "red dog hat"),
        (r"a \(dog\)", "a (dog)"),
        (r"(a \(dog\):1.2)", "a (dog)"),
        ("(dog:x)", "dog:x"),
        ("(:1.2)", ":1.2"),
        ("(dog:1.2:1.3)", "dog:1.2"),
        ("(dog: 1.2 )", "dog"),
        ("()", ""),
        ("(", "("),
        (")(", ")("),
        ("a) b (c:1.2) d", "a) b (c:1.2) d"),
        ("((a)", "(a"),
        ("", ""),
        ("a\n(b:2)\nc", "a\nb\nc"),
    ],
)
def test_plain_text(prompt, text):
    assert plain_text(prompt).text == text


def test_spans_point_into_the_prompt_as_typed():
    plain = plain_text(r"a (red:1.2) \(dog\)")
    assert plain.text == "a red (dog)"
    assert plain.span(2, 5) == (3, 6)
    assert plain.span(6, 11) == (12, 19)
    assert plain.borders == {0, 2, 5}


@given(st.text(alphabet="ab (:)\\.1\0\1\2,\n🦒", max_size=60))
def test_every_character_of_the_text_was_typed_where_it_says(prompt):
    plain = plain_text(prompt)
    assert len(plain.where) == len(plain.text)
    assert all(a < b for a, b in plain.where)
    assert all(before[1] <= after[0] for before, after in zip(plain.where, plain.where[1:], strict=False))
    for character, (start, end) in zip(plain.text, plain.where, strict=True):
        assert prompt[start:end] == character or prompt[start:end] == "\\" + character or "\0" in prompt


def test_deep_nesting_is_an_error_that_says_what_to_do():
    plain_text("(" * MAX_DEPTH + "dog" + ")" * MAX_DEPTH)
    with pytest.raises(ValueError, match=rf"deeper than {MAX_DEPTH}.*\(dog:1.3\)"):
        plain_text("(" * (MAX_DEPTH + 1) + "dog" + ")" * (MAX_DEPTH + 1))


def test_prompts_that_cannot_be_read_are_errors():
    check_prompt("a" * MAX_CHARACTERS)
    with pytest.raises(ValueError, match="10,001 characters; at most 10,000"):
        check_prompt("a" * (MAX_CHARACTERS + 1))
    with pytest.raises(ValueError, match=r"surrogate.* position 2"):
        check_prompt("ab\ud83d")
