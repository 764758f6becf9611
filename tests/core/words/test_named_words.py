"""Words that the user names."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.named_words import NamedWords, read_named_words

TEXT = "a dog, a Red  car and a dog-house with a dog"


def test_entries():
    assert read_named_words(" dog, red car#2\nscene: beach ,, Subject:cat#1,") == (
        NamedWords("dog", "subject", None),
        NamedWords("red car", "subject", 2),
        NamedWords("beach", "scene", None),
        NamedWords("cat", "subject", 1),
    )
    assert read_named_words(" \n ") == ()


def test_whole_words_are_found_whatever_their_case_and_spacing():
    assert NamedWords("DOG", "subject", None).find(TEXT) == [(2, 5), (24, 27), (41, 44)]
    assert NamedWords("red car", "subject", None).find(TEXT) == [(9, 17)]
    assert NamedWords("do", "subject", None).find(TEXT) == []
    assert NamedWords("og", "subject", None).find(TEXT) == []
    assert NamedWords("dog.*", "subject", None).find(TEXT) == []


def test_an_occurrence_by_number():
    assert NamedWords("dog", "subject", 3).find(TEXT) == [(41, 44)]
    with pytest.raises(ValueError, match=r"no 'dog#4'.*3 time\(s\).*1 to 3"):
        NamedWords("dog", "subject", 4).find(TEXT)
    with pytest.raises(ValueError, match="dog#0"):
        NamedWords("dog", "subject", 0).find(TEXT)
