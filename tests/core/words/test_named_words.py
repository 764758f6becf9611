"""Words that the user names."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.core.words.named_words import Name, read_override

TEXT = "a dog, a Red  car and a dog-house with a dog"


def test_entries():
    assert read_override(" dog, red car#2\nscene: beach ,, Subject:cat#1,") == (
        Name("dog", "subject", None),
        Name("red car", "subject", 2),
        Name("beach", "scene", None),
        Name("cat", "subject", 1),
    )
    assert read_override(" \n ") == ()


def test_whole_words_are_found_whatever_their_case_and_spacing():
    assert Name("DOG", "subject", None).find(TEXT) == [(2, 5), (24, 27), (41, 44)]
    assert Name("red car", "subject", None).find(TEXT) == [(9, 17)]
    assert Name("do", "subject", None).find(TEXT) == []
    assert Name("og", "subject", None).find(TEXT) == []
    assert Name("dog.*", "subject", None).find(TEXT) == []


def test_an_occurrence_by_number():
    assert Name("dog", "subject", 3).find(TEXT) == [(41, 44)]
    with pytest.raises(ValueError, match=r"no 'dog#4'.*3 time\(s\).*1 to 3"):
        Name("dog", "subject", 4).find(TEXT)
    with pytest.raises(ValueError, match="dog#0"):
        Name("dog", "subject", 0).find(TEXT)
