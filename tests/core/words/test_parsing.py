"""Subjects and scenes of prompts, without ComfyUI: roles, override, whole phrases, spans."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.parsing import parse, table
from explainable_latents.nodes.core.words.tokens import TokenSpan


def found(prompt: str, **options) -> tuple[list[str], list[str]]:
    items = parse(prompt, {}, parser="rules", **options).items
    return [i.text for i in items if i.role == "subject"], [i.text for i in items if i.role == "scene"]


def words(prompt: str, size: int = 1) -> dict[str, tuple[TokenSpan, ...]]:
    """One token for each letter run of up to `size` letters, as an encoder "l" might have them."""
    spans, position = [], 0
    for start, character in enumerate(prompt):
        if character.isalnum():
            position += 1
            spans.append(TokenSpan(position, start, start + size))
    return {"l": tuple(spans)}


@pytest.mark.parametrize(
    ("prompt", "subjects", "scenes"),
    [
        ("a dog on the beach", ["dog"], ["beach"]),
        ("a dog and a cat playing in the garden", ["dog", "cat"], ["garden"]),
        ("masterpiece, best quality, 1girl, beach", ["1girl"], ["beach"]),
        ("a cat on a chair in a kitchen", ["cat"], ["chair", "kitchen"]),
        ("a dog looking at a cat", ["dog"], []),
        ("mountains", [], ["mountains"]),
        ("a photo of a group of people on top of a hill at night", ["people"], ["hill"]),
        ("A DOG ON THE BEACH!!!", ["DOG"], ["BEACH"]),
        ("a dog [on] the {beach}", ["dog"], ["beach"]),
        ("a (red:1.2)car on a (road)", ["car"], ["road"]),
        ("a photo of embedding:my_cat, on the beach", ["embedding:my_cat"], ["beach"]),
        ("running", [], []),
        ("", [], []),
        ("   \n", [], []),
        ("🏖️🐶", [], []),
    ],
)
def test_roles(prompt, subjects, scenes):
    assert found(prompt) == (subjects, scenes)


def test_spans_refer_to_the_prompt_as_typed():
    prompt = "a ((fluffy) dog:1.3) on the \\(beach\\)"
    dog, beach = parse(prompt, {}, parser="rules").items
    assert prompt[slice(*dog.span)] == "dog"
    assert prompt[slice(*beach.span)] == "beach"


def test_whole_phrases_leave_out_articles_only():
    prompt = "the (small:1.2) white dog on a sunny beach"
    dog, beach = parse(prompt, {}, parser="rules", extent="whole phrase").items
    assert (dog.text, beach.text) == ("small white dog", "sunny beach")
    assert prompt[slice(*dog.span)] == "small:1.2) white dog"


def test_positions_come_from_the_tokens_of_every_encoder():
    prompt = "a dog on a bay"
    tokens = {**words(prompt), "t5xxl": (TokenSpan(0, 2, 5), TokenSpan(4, 10, 14))}
    dog, bay = parse(prompt, tokens, parser="rules").items
    assert dog.tokens == {"l": (2, 3, 4), "t5xxl": (0,)}
    assert bay.tokens == {"l": (8, 9, 10), "t5xxl": (4,)}


def test_words_without_any_token_are_no_subjects():
    assert parse("a dog on a bay", {"l": (TokenSpan(1, 2, 5),)}, parser="rules").labels == ("dog",)


def test_override_replaces_the_roles_it_names():
    prompt = "a dog and a red car on the beach near a red house"
    assert found(prompt, override="Red Car") == (["red car"], ["beach", "house"])
    assert found(prompt, override="red") == (["red", "red"], ["beach", "house"])
    assert found(prompt, override="red#2") == (["red"], ["beach", "house"])
    assert found("(red:1.2)car", override="car") == (["car"], [])
    assert found(prompt, override="beach") == (["beach"], ["house"])
    assert found(prompt, override="scene: car") == (["dog"], ["car"])
    assert found(prompt, override="car, scene: dog") == (["car"], ["dog"])


def test_override_that_is_not_there_lists_the_tokens():
    with pytest.raises(ValueError, match=r"'cat' is not in the prompt\. .* The prompt's tokens: l: 1:a 2:d 3:o 4:g"):
        parse("a dog", words("a dog"), override="cat")
    with pytest.raises(ValueError, match="'dog' has no token in any text encoder"):
        parse("a dog", {"l": (TokenSpan(1, 0, 1),)}, override="dog")


def test_table_shows_parser_words_roles_and_positions():
    text = table(parse("a dog on a bay", words("a dog on a bay"), parser="rules"))
    assert text.splitlines() == [
        "dog | subject | l: 2, 3, 4",
        "bay | scene | l: 8, 9, 10",
        "parser: rules",
    ]
    assert "(nothing found)" in table(parse("", {}))


def test_words_that_the_prompt_need_not_have_are_left_out_and_named():
    subjects = parse("a dog on the beach", {}, "cat?, scene: sea?, dog#2?", "rules")
    assert [(item.text, item.role) for item in subjects.items] == [("dog", "subject"), ("beach", "scene")]
    assert subjects.absent == ("cat", "sea", "dog#2")
    assert table(subjects).splitlines()[0] == "note: not in this prompt, left out: cat, sea, dog#2."
    assert found("a dog on the beach", override="cat?, beach") == (["beach"], [])


def test_words_that_have_no_role():
    prompt = "a dog and a cat on the beach"
    assert found(prompt, override="not: dog") == (["cat"], ["beach"])
    assert found(prompt, override="not: dog, not: cat") == ([], ["beach"])
    assert found(prompt, override="not: beach, scene: cat") == (["dog"], ["cat"])
    with pytest.raises(ValueError, match="'zebra' is not in the prompt"):
        parse(prompt, {}, "not: zebra", "rules")


def test_a_typed_word_that_is_not_there_says_how_to_clear_it():
    with pytest.raises(ValueError, match=r"Take it out of 'override', or empty 'override'.*'zebra\?' would"):
        parse("a dog", {}, "zebra", "rules")


def test_english_words_are_read_beside_words_of_another_script():
    assert found("a dog on the beach, 高清, หมา") == (["dog"], ["beach"])
    assert found("狗 and a cat", override="狗") == (["狗"], [])


def test_a_script_that_cannot_be_read_gives_no_subject_and_says_so():
    subjects = parse("หมาบนชายหาด", {}, "", "rules")
    assert subjects.items == ()
    assert subjects.unread == "other"
    note, *_ = table(subjects).splitlines()
    assert note == "note: words of a script without spaces between words are used only where 'override' names them."
    (dog,) = parse("หมาบนชายหาด", {}, "หมา", "rules").items
    assert (dog.text, dog.span) == ("หมา", (0, 3))
