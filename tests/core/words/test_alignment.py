"""Characters to token positions, without ComfyUI."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.alignment import Piece, TokenSpan, positions_of, token_list, token_spans
from explainable_latents.nodes.core.words.prompt_text import plain_text

PROMPT = "a (giraffe:1.3) here"
PIECES = [
    Piece("a ", ((0, 1),), (1,)),
    Piece("giraffe", ((0, 3), (3, 7)), (2, 3)),
    Piece(" here", ((0, 5),), (4,)),
]
SPANS = (TokenSpan(1, 0, 1), TokenSpan(2, 3, 6), TokenSpan(3, 6, 10), TokenSpan(4, 16, 20))


def test_tokens_are_given_the_characters_as_typed():
    assert token_spans(plain_text(PROMPT), PIECES) == SPANS


def test_white_space_may_change_but_nothing_else():
    plain = plain_text("a dog")
    assert token_spans(plain, [Piece("a", ((0, 1),), (1,)), Piece("\n dog", ((0, 5),), (2,))])[1] == TokenSpan(2, 2, 5)
    for pieces in (["a", "cat"], ["a"], ["a", "dog", "x"]):
        with pytest.raises(ValueError, match="would be a guess"):
            token_spans(plain, [Piece(text, ((0, len(text)),), (1,)) for text in pieces])


def test_tokens_of_white_space_and_dropped_tokens_have_no_span():
    spans = token_spans(plain_text("a b"), [Piece("a b", ((0, 1), (1, 2), (2, 3)), (1, 2, None))])
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
