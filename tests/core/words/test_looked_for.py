"""Words to look for: which of them stand in the prompt, and what is encoded for the others."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.looked_for import read_looked_for
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.tokens import TokenSpan

PROMPT = "a (red:1.2) dog and a dog\\(big\\)"


def letters(prompt: str) -> dict[str, tuple[TokenSpan, ...]]:
    """One token for each letter, as an encoder "l" might have them."""
    places = [i for i, character in enumerate(prompt) if character.isalpha()]
    return {"l": tuple(TokenSpan(number, i, i + 1) for number, i in enumerate(places, 1))}


def read(text: str, override: str = "nothing to see", prompt: str = PROMPT):
    """Spans of the words in the prompt, and the others."""
    tokens = letters(prompt)
    subjects = parse(prompt, tokens, override if override in prompt else "", "rules")
    inside, absent = read_looked_for(text, subjects, tokens)
    assert {item.role for item in inside} <= {"looked for"}
    return [(prompt[slice(*item.span)], item.span[0], item.tokens["l"]) for item in inside], absent


def test_words_outside_the_prompt_keep_what_was_typed_under_a_plain_name():
    found, absent = read("cat, (blue  sky:1.4)\nembedding:x", prompt="a lake")
    assert found == []
    assert absent == {"cat": "cat", "blue sky": "(blue  sky:1.4)", "embedding:x": "embedding:x"}


def test_words_of_the_prompt_are_found_by_whole_words_whatever_their_case():
    found, absent = read("RED, do, (big:2), and a")
    assert found == [("red", 3, (2, 3, 4)), ("big", 27, (15, 16, 17)), ("and a", 16, (8, 9, 10, 11))]
    assert absent == {"do": "do"}


def test_every_place_or_the_one_with_the_number_but_none_that_is_a_subject():
    prompt = "red dog, red cat, red"
    assert [start for _, start, _ in read("red", prompt=prompt)[0]] == [0, 9, 18]
    assert [start for _, start, _ in read("red#2, red#2", prompt=prompt)[0]] == [9]
    assert [start for _, start, _ in read("red", "red", prompt=prompt)[0]] == []


@pytest.mark.parametrize("text", ["", " , ,", "\n"])
def test_nothing(text):
    assert read(text) == ([], {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dog#3", "look_for: there is no 'dog#3'; the prompt has 'dog' 2 time"),
        ("cat#1", "look_for: 'cat#1' has a number, but 'cat' is not in the prompt"),
        ("(" * 60 + "cat" + ")" * 60, "nested deeper than 50"),
        ("a" * 10_001, "10,001 characters"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        read(text)
