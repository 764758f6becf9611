"""Characters to token positions, without ComfyUI."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.prompt_text import plain_text
from explainable_latents.nodes.core.words.tokens import (
    MAX_SLOW_RUN,
    TokenizedText,
    TokenSpan,
    byte_offsets,
    check_slow,
    positions_of,
    token_list,
    token_offsets,
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


# Byte-level tokens laid over a text, as the slow CLIP tokenizer of transformers 4 needs it.


def normalise(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()


class SlowTokenizer:
    """The interface of transformers 4's slow CLIP tokenizer, with one token per byte."""

    is_fast = False
    fix_text = None
    byte_decoder = {chr(byte): byte for byte in range(256)}

    class nlp:
        @staticmethod
        def tokenize(text: str) -> list[str]:
            return normalise(text).split()

    @staticmethod
    def convert_ids_to_tokens(ids: list[int]) -> list[str]:
        return [chr(byte) + "</w>" * (byte == ord("g")) for byte in ids]


def test_bytes_of_a_character_share_its_span():
    assert byte_offsets("É 🦒", ["é".encode(), "🦒".encode()[:2], "🦒".encode()[2:]], normalise) == (
        (0, 1),
        (2, 3),
        (2, 3),
    )


def test_combining_marks_belong_to_their_character():
    assert byte_offsets("e\u0301a", ["é".encode(), b"a"], normalise) == ((0, 2), (2, 3))


def test_a_word_that_only_changes_as_a_whole_counts_as_one():
    assert byte_offsets("x &amp; y", [b"x", b"&", b"y"], lambda text: text.replace("&amp;", "&")) == (
        (0, 1),
        (2, 7),
        (8, 9),
    )


def test_characters_that_vanish_take_no_token():
    assert byte_offsets("a\0b", [b"a", b"b"], lambda text: text.replace("\0", "")) == ((0, 1), (2, 3))


def test_bytes_of_another_text_are_an_error():
    with pytest.raises(ValueError, match="cannot be traced back"):
        byte_offsets("dog", [b"cat"], normalise)


@given(st.text(st.characters(codec="utf-8"), max_size=30), st.data())
def test_cut_anywhere_the_spans_cover_the_bytes(text, data):
    whole = "".join(normalise(text).split()).encode()
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)), max_size=8))) if len(whole) > 1 else []
    tokens = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)] if whole else []
    offsets = byte_offsets(text, tokens, normalise)
    for token, (start, end) in zip(tokens, offsets, strict=True):
        assert token in "".join(normalise(text[start:end]).split()).encode()


def test_slow_tokenizers_are_traced_by_bytes():
    assert token_offsets(SlowTokenizer, "Dog", list(b"dog")) == ((0, 1), (1, 2), (2, 3))
    with pytest.raises(ValueError, match="cannot be traced back"):
        token_offsets(SlowTokenizer, "Dog", list(b"cat"))


def test_endless_words_are_refused_before_a_slow_tokenizer_hangs():
    check_slow(SlowTokenizer, "a" * MAX_SLOW_RUN + " b")
    with pytest.raises(ValueError, match="without a space"):
        check_slow(SlowTokenizer, "a" * (MAX_SLOW_RUN + 1))


def test_unknown_tokenizers_are_refused():
    with pytest.raises(ValueError, match=r"Supported: SD 1\.x"):
        token_offsets(object(), "dog", [1])
