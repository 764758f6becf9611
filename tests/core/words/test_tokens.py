"""Characters to token positions, without ComfyUI."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.context_rows import ContextRows
from explainable_latents.nodes.core.words.parsing import parse, table
from explainable_latents.nodes.core.words.prompt_text import plain_text
from explainable_latents.nodes.core.words.tokens import (
    PromptTokens,
    TokenizedText,
    TokenSpan,
    positions_of,
    spans_within,
    token_list,
    token_spans,
)

PROMPT = "a (giraffe:1.3) here"
TEXTS = [
    TokenizedText("a ", ((0, 1),), (1,)),
    TokenizedText("giraffe", ((0, 3), (3, 7)), (2, 3)),
    TokenizedText(" here", ((0, 5),), (4,)),
]
SPANS = (TokenSpan(1, 0, 1), TokenSpan(2, 3, 6), TokenSpan(3, 6, 10), TokenSpan(4, 16, 20))


def test_tokens_are_given_the_characters_as_typed():
    assert token_spans(plain_text(PROMPT), TEXTS) == SPANS


def test_white_space_may_change_but_nothing_else():
    plain = plain_text("a dog")
    assert token_spans(plain, [TokenizedText("a", ((0, 1),), (1,)), TokenizedText("\n dog", ((0, 5),), (2,))])[
        1
    ] == TokenSpan(2, 2, 5)
    for texts in (["a", "cat"], ["a"], ["a", "dog", "x"]):
        with pytest.raises(ValueError, match="would be a guess"):
            token_spans(plain, [TokenizedText(text, ((0, len(text)),), (1,)) for text in texts])


def test_tokens_of_white_space_and_dropped_tokens_have_no_span():
    spans = token_spans(plain_text("a b"), [TokenizedText("a b", ((0, 1), (1, 2), (2, 3)), (1, 2, None))])
    assert spans == (TokenSpan(1, 0, 1),)


def test_positions_are_those_of_tokens_that_share_a_character():
    assert positions_of((3, 10), SPANS) == (2, 3)
    assert positions_of((5, 6), SPANS) == (2,)
    assert positions_of((10, 16), SPANS) == ()
    assert positions_of((0, 20), SPANS) == (1, 2, 3, 4)


def test_token_list_for_messages():
    assert token_list(PROMPT, SPANS) == "1:a 2:gir 3:affe 4:here"
    assert token_list(PROMPT, SPANS, limit=1) == "1:a … (4 tokens)"
    assert token_list("", ()) == "(no tokens)"


def test_tokens_inside_a_template_are_counted_from_where_the_prompt_starts():
    tokens = (TokenSpan(0, 0, 5), TokenSpan(1, 4, 8), TokenSpan(2, 9, 12), TokenSpan(3, 12, 20))
    assert spans_within(tokens, 6, 14) == (TokenSpan(1, 0, 2), TokenSpan(2, 3, 6), TokenSpan(3, 6, 8))


TWO_ENCODERS = PromptTokens(
    {"l": (TokenSpan(2, 2, 5), TokenSpan(3, 6, 9)), "t5": (TokenSpan(0, 2, 5), TokenSpan(1, 6, 9))},
    # the rows of "l", of which the last is cut off, then those of "t5", of which each has two
    ContextRows(6, {"l": {2: (0,)}, "t5": {0: (2, 3), 1: (4, 5)}}),
    ("note: something.",),
)


def test_the_rows_of_a_word_are_those_of_its_tokens_in_every_encoder():
    subjects = parse("a dog cat", TWO_ENCODERS, "dog, cat", "rules")
    assert [item.rows for item in subjects.items] == [(0, 2, 3), (4, 5)]
    assert subjects.positions() == ((0, 2, 3), (4, 5))
    assert subjects.word_positions() == (0, 2, 3, 4, 5)
    assert subjects.context_length == 6
    assert table(subjects).splitlines() == [
        "note: something.",
        "dog | subject | l: 2  t5: 0  rows: 0, 2, 3",
        "cat | subject | l: 3  t5: 1  rows: 4, 5",
        "parser: rules",
    ]


def test_rows_that_are_the_positions_of_clip_are_not_shown_twice():
    tokens = PromptTokens({"l": (TokenSpan(2, 2, 5),)}, ContextRows(77, {"l": {2: (2,)}}))
    subjects = parse("a dog", tokens, "dog", "rules")
    assert subjects.positions() == ((2,),)
    assert table(subjects) == "dog | subject | l: 2\nparser: rules"


def test_a_word_that_the_encoder_cuts_off_is_no_subject_and_cannot_be_named():
    tokens = PromptTokens({"t5": (TokenSpan(0, 2, 5), TokenSpan(1, 10, 13))}, ContextRows(1, {"t5": {0: (0,)}}))
    assert parse("a dog and cat", tokens, "", "rules").labels == ("dog",)
    with pytest.raises(ValueError, match=r"'cat' has no token.*cut off a long prompt"):
        parse("a dog and cat", tokens, "cat", "rules")


def test_tokens_without_an_encoder_have_no_rows():
    subjects = parse("a dog", {"l": (TokenSpan(2, 2, 5),)}, "dog", "rules")
    assert subjects.items[0].rows is None
    assert subjects.context_length is None
    assert subjects.positions() == ((2,),)
