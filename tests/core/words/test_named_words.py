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


def test_entries_that_the_prompt_need_not_have_and_entries_without_a_role():
    assert read_named_words("dog?, scene: red car#2 ?, not: Ball, NOT: cat#1?, ?") == (
        NamedWords("dog", "subject", None, if_present=True),
        NamedWords("red car", "scene", 2, if_present=True),
        NamedWords("Ball", None, None),
        NamedWords("cat", None, 1, if_present=True),
        NamedWords("?", "subject", None),
    )
    assert NamedWords("zebra", "subject", None, if_present=True).find(TEXT) == []
    assert NamedWords("dog", "subject", 4, if_present=True).find(TEXT) == []
    assert NamedWords("dog", "subject", 2, if_present=True).find(TEXT) == [(24, 27)]


def test_a_question_mark_that_the_prompt_has_is_one():
    (entry,) = read_named_words("why?")
    assert entry.find("why? or why not") == [(0, 4)]
    assert entry.find("or why not") == [(3, 6)]


@pytest.mark.parametrize(
    ("words", "text", "places"),
    [
        ("狗", "一只狗在沙滩上，两只狗", [(2, 3), (10, 11)]),
        ("红色的狗", "红色的 狗", [(0, 5)]),  # a weight ends before the last character
        ("犬", "赤い犬がビーチで遊ぶ", [(2, 3)]),
        ("หมา", "หมาบนชายหาด", [(0, 3)]),
        ("dog", "一只dog在沙滩上", [(2, 5)]),
        ("dog", "一只dogs在沙滩上", []),
        ("小 狗", "一只小狗", []),
    ],
)
def test_words_of_a_script_without_spaces_may_stand_anywhere(words: str, text: str, places: list[tuple[int, int]]):
    assert NamedWords(words, "subject", None).find(text) == places


def test_chinese_and_japanese_commas_and_colons_count():
    assert read_named_words("狗，猫、scene：沙滩") == (
        NamedWords("狗", "subject", None),
        NamedWords("猫", "subject", None),
        NamedWords("沙滩", "scene", None),
    )
