"""Which tokens of a source prompt stand for which of a target prompt, by hand and against a slow search."""

from __future__ import annotations

import re
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.alignment import ChunkedPrompt, described, refined, same_words, swapped
from explainable_latents.nodes.core.words.tokens import TokenSpan

LENGTH = 12


def prompt(text: str, length: int = LENGTH) -> ChunkedPrompt:
    """A prompt as CLIP would cut it, if it knew words of at most four letters: "giraffe" has the tokens gira, ffe."""
    spans = []
    for number, match in enumerate(re.finditer(r"\w{1,4}|[^\w\s]", text)):
        per_chunk = length - 2
        position = number // per_chunk * length + 1 + number % per_chunk
        spans.append(TokenSpan(position, *match.span()))
    chunks = max(1, -(-len(spans) // (length - 2)))
    return ChunkedPrompt(text, tuple(spans), (length,) * chunks)


def columns(alignment) -> dict[int, dict[int, float]]:
    """target token -> source token -> share."""
    found: dict[int, dict[int, float]] = {}
    for i, j, share in alignment.shares:
        found.setdefault(j, {})
        found[j][i] = found[j].get(i, 0) + share
    return found


def test_words_are_those_of_the_tokens_with_punctuation_apart():
    assert prompt("A giraffe, (red) car").words() == [
        ("a", (1,)),
        ("giraffe", (2, 3)),
        (",", (4,)),
        ("(", (5,)),
        ("red", (6,)),
        (")", (7,)),
        ("car", (8,)),
    ]
    # weights are syntax, no token covers them
    tokens = (TokenSpan(1, 0, 1), TokenSpan(2, 3, 6), TokenSpan(3, 6, 10), TokenSpan(4, 16, 20))
    assert ChunkedPrompt("a (giraffe:1.3) here", tokens, (12,)).words()[1] == ("giraffe", (2, 3))
    # in a script without spaces every character is a word
    assert [word for word, _ in ChunkedPrompt("狗猫", (TokenSpan(1, 0, 1), TokenSpan(2, 1, 2)), (12,)).words()] == [
        "狗",
        "猫",
    ]


def test_equal_prompts_are_paired_token_by_token():
    same = prompt("a giraffe on grass")
    everything = {j: {j: 1.0} for j in range(LENGTH)}
    assert columns(swapped(same, same)) == columns(refined(same, same)) == everything
    assert swapped(same, same).own == refined(same, same).own == frozenset()


@pytest.mark.parametrize(
    ("source", "target", "word", "after"),
    [
        ("a dog runs", "a giraffe runs", {2: {2: 0.5}, 3: {2: 0.5}}, {4: {3: 1.0}, 5: {4: 1.0}, 11: {10: 1.0}}),
        ("a giraffe runs", "a dog runs", {2: {2: 1.0, 3: 1.0}}, {3: {4: 1.0}, 4: {5: 1.0}, 10: {11: 1.0}}),
        ("a dog runs", "a cat runs", {2: {2: 1.0}}, {3: {3: 1.0}, 4: {4: 1.0}, 11: {11: 1.0}}),
    ],
)
def test_what_follows_a_swapped_word_of_other_length_is_shifted_with_it(source, target, word, after):
    """The authors' code pairs position with position behind it, so the next word would be another one."""
    found = columns(swapped(prompt(source), prompt(target)))
    assert found[0] == {0: 1.0}
    assert found[1] == {1: 1.0}
    assert {j: found[j] for j in (*word, *after)} == word | after


def test_prompts_of_other_numbers_of_words_are_not_swapped():
    one, other = prompt("a dog"), prompt("a red dog")
    assert not same_words(one, other)
    with pytest.raises(ValueError, match=r"'a dog' has 2 words and 'a red dog' has 3.*choose refine"):
        swapped(one, other)


def test_added_words_are_their_own_and_what_follows_them_is_found_again():
    alignment = refined(prompt("a dog runs"), prompt("a red dog runs"))
    found = columns(alignment)
    assert alignment.own == {2}
    assert found == {0: {0: 1}, 1: {1: 1}, 3: {2: 1}, 4: {3: 1}, 5: {4: 1}, **{j: {j: 1} for j in range(6, LENGTH)}}
    assert described(alignment, prompt("a dog runs"), prompt("a red dog runs")) == "\n".join(
        ["a < a", "red (its own)", "dog < dog", "runs < runs"]
    )


def test_a_part_of_a_word_is_not_that_word():
    """`gira` at the end of a word and in its middle are two tokens of CLIP's."""
    alignment = refined(prompt("a gira here"), prompt("a giraffe here"))
    assert {2, 3} <= alignment.own


def test_chunks_are_paired_with_their_own_begin_end_and_padding():
    source, target = prompt("a b c d e f g", 6), prompt("a b c d e x g", 6)
    assert source.chunks == (6, 6)
    for way in (swapped, refined):
        found = columns(way(source, target))
        assert {j: found[j] for j in (0, 5, 6, 7, 9, 10, 11)} == {j: {j: 1.0} for j in (0, 5, 6, 7, 9, 10, 11)}
    assert columns(swapped(source, target))[8] == {8: 1.0}
    assert refined(source, target).own == {8}


def test_a_chunk_that_the_source_lacks_is_its_own():
    source, target = prompt("a b", 6), prompt("a b c d e", 6)
    alignment = refined(source, target)
    assert target.length == 12
    assert {3, 4, 6, 7} <= alignment.own
    assert alignment.own | columns(alignment).keys() == set(range(12))


@given(st.text("abc", min_size=1, max_size=6), st.text("abc", min_size=1, max_size=6))
def test_as_many_words_are_found_again_as_a_search_through_everything_finds(one, other):
    source, target = prompt(" ".join(one)), prompt(" ".join(other))
    longest = max(
        k for k in range(min(len(one), len(other)) + 1) if {*combinations(one, k)} & {*combinations(other, k)}
    )
    alignment = refined(source, target)
    words = [j for j in range(1, len(other) + 1) if j not in alignment.own]
    partners = [next(iter(columns(alignment)[j])) for j in words]
    assert len(words) == longest
    assert partners == sorted(partners)
    assert [one[i - 1] for i in partners] == [other[j - 1] for j in words]
