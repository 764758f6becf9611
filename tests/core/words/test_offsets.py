"""Offsets of byte-level tokens laid over a text, as the slow CLIP tokenizer of transformers 4 needs them."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.offsets import MAX_SLOW_RUN, byte_offsets, check_slow, token_offsets


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
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)] if whole else []
    offsets = byte_offsets(text, pieces, normalise)
    for piece, (start, end) in zip(pieces, offsets, strict=True):
        assert piece in "".join(normalise(text[start:end]).split()).encode()


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
