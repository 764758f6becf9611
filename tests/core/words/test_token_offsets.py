"""Tokens to characters of their text, for tokenizers that do not report it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.words.token_offsets import (
    MAX_SLOW_RUN,
    byte_offsets,
    check_slow,
    piece_offsets,
    token_offsets,
)

INNER = slice(1, -1)


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

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [0, *normalise(text).encode(), 0]}

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
    assert token_offsets(SlowTokenizer(), "Dog", list(b"dog"), INNER) == ((0, 1), (1, 2), (2, 3))
    with pytest.raises(ValueError, match="cannot be traced back"):
        token_offsets(SlowTokenizer(), "Dog", list(b"cat"), INNER)


def test_the_host_may_cut_the_last_tokens_off_but_none_between():
    assert token_offsets(SlowTokenizer(), "Dog", list(b"do"), INNER) == ((0, 1), (1, 2))
    assert token_offsets(SlowTokenizer(), "Dog", [], INNER) == ()
    with pytest.raises(ValueError, match="cannot be traced back"):
        token_offsets(SlowTokenizer(), "Dog", list(b"dg"), INNER)


class SlowSpacedTokenizer:
    """The interface of transformers 4's slow Qwen tokenizer, with one token per byte."""

    byte_decoder = {chr(byte): byte for byte in range(256)}

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": list(unicodedata.normalize("NFC", text).encode())}

    @staticmethod
    def convert_ids_to_tokens(ids: list[int]) -> list[str]:
        return [chr(byte) for byte in ids]


def test_slow_tokenizers_that_keep_white_space_are_traced_by_bytes():
    text = "e\u0301 \n🦒"
    ids = SlowSpacedTokenizer()(text)["input_ids"]
    assert token_offsets(SlowSpacedTokenizer(), text, ids, slice(None)) == (
        (0, 2), (0, 2), (2, 3), (3, 4), (4, 5), (4, 5), (4, 5), (4, 5),
    )  # fmt: skip


class SlowPieces:
    """The interface of transformers 4's slow BERT tokenizer, for a text of a word it knows and one it does not."""

    unk_token = "[UNK]"
    names = ("[CLS]", "dog", "##house", "[UNK]", "[SEP]")

    class basic_tokenizer:
        @staticmethod
        def tokenize(text: str) -> list[str]:
            return text.lower().split()

    def __call__(self, text: str) -> dict[str, list[int]]:
        return {"input_ids": [0, 1, 2, 3, 4]}

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.names[each] for each in ids]


def test_pieces_of_words_are_traced_without_their_marks():
    assert token_offsets(SlowPieces(), " Doghouse 🦒🐕", [1, 2, 3], INNER) == ((1, 4), (4, 9), (10, 12))
    for text in ("cathouse x", "doghouse x y"):
        with pytest.raises(ValueError, match="cannot be traced back"):
            token_offsets(SlowPieces(), text, [1, 2, 3], INNER)


def test_pieces_without_white_space_and_unknown_characters_are_laid_over_the_rest_of_the_text():
    known = set("aredogcf")
    assert piece_offsets("a red\ndog", ["are", "dd", "og"], known) == ((0, 4), (4, 7), (7, 9))
    assert piece_offsets("café 🦒 dog", ["caf", "do", "g"], known) == ((0, 3), (7, 9), (9, 10))
    with pytest.raises(ValueError, match="cannot be traced back"):
        piece_offsets("a cat", ["a", "dog"], known)


def test_endless_words_are_refused_before_a_slow_tokenizer_hangs():
    check_slow(SlowTokenizer, "a" * MAX_SLOW_RUN + " b")
    with pytest.raises(ValueError, match="without a space"):
        check_slow(SlowTokenizer, "a" * (MAX_SLOW_RUN + 1))


def test_unknown_tokenizers_are_refused():
    with pytest.raises(ValueError, match="would be a guess"):
        token_offsets(object(), "dog", [1], INNER)
