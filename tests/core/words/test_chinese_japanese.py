"""Chinese and Japanese prompts, cut into words by the libraries that users may install."""

from __future__ import annotations

import sys

import pytest

from explainable_latents.nodes.core.words.chips import chips
from explainable_latents.nodes.core.words.parsing import parse, table


def found(prompt: str, which: str = "main subject", extent: str = "head noun") -> tuple[list[str], list[str]]:
    items = parse(prompt, {}, "", "rules", extent, which).items
    return [i.text for i in items if i.role == "subject"], [i.text for i in items if i.role == "scene"]


@pytest.mark.parametrize(
    ("prompt", "subjects", "scenes"),
    [
        ("一只狗在沙滩上", ["狗"], ["沙滩"]),
        ("一只狗和一只猫在花园里", ["狗", "猫"], ["花园"]),
        ("沙滩上的狗", ["狗"], ["沙滩"]),
        ("一张狗的照片，高清", ["狗"], []),
        ("一个女孩在森林里，阳光，杰作", ["女孩"], ["森林"]),
        ("红色的汽车", ["汽车"], []),
        ("(狗:1.3)在公园里奔跑", ["狗"], ["公园"]),
        ("ビーチにいる犬", ["犬"], ["ビーチ"]),
        ("犬と猫が公園で遊んでいる", ["犬", "猫"], ["公園"]),
        ("森の中の少女", ["少女"], ["森"]),
        ("猫の写真、最高品質", ["猫"], []),
    ],
)
def test_subjects_and_scenes(prompt: str, subjects: list[str], scenes: list[str]):
    assert found(prompt) == (subjects, scenes)


def test_all_things_and_whole_phrases():
    assert found("一个女孩拿着风筝在山上", "all things") == (["女孩", "风筝"], ["山"])
    assert found("红色的汽车在路上", extent="whole phrase") == (["红色的汽车"], ["路"])


def test_what_read_the_text_is_named():
    assert parse("一只狗在沙滩上", {}, "", "rules").parser == "rules, jieba"
    assert parse("ビーチにいる犬", {}, "", "rules").parser == "rules, janome"
    assert parse("a dog", {}, "", "rules").parser == "rules"


def test_chips_are_words():
    subjects = parse("一只狗在沙滩上, a dog", {}, "", "rules")
    listed = chips(subjects, subjects)
    assert "".join(chip["text"] for chip in listed) == "一只狗在沙滩上adog"
    assert {"狗": "subject", "沙滩": "scene"}.items() <= {chip["text"]: chip["role"] for chip in listed}.items()


def test_named_words_need_no_word_borders():
    (dog, beach) = parse("一只小狗在沙滩上", {}, "狗", "rules").items
    assert (dog.text, dog.span, beach.text) == ("狗", (3, 4), "沙滩")


@pytest.mark.parametrize(
    ("prompt", "language", "library"), [("一只猫在桌上", "Chinese", "jieba"), ("机の上の猫です", "Japanese", "janome")]
)
def test_without_the_library_named_words_are_used_and_the_node_says_so(
    prompt: str, language: str, library: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not installed
    subjects = parse(prompt, {}, "", "rules")
    assert subjects.items == ()
    assert subjects.unread == language
    assert f"pip install {library}" in table(subjects).splitlines()[0]
    (cat,) = parse(prompt, {}, "猫", "rules").items
    assert cat.text == "猫"
    assert [chip["text"] for chip in chips(parse(prompt, {}, "猫", "rules"), subjects)] == ["猫"]
