"""Kinds of nouns: the pack's table and the program that makes it."""

from __future__ import annotations

import bz2
from pathlib import Path

import pytest

from explainable_latents.nodes.core.words.english.noun_kinds import (
    TABLE,
    noun_kinds,
    pictured_kind,
    read_table,
    spelled_out,
)
from explainable_latents.nodes.core.words.english.word_forms import wordnet_nouns
from tests.tools.wordnet.__main__ import shortened, word_kinds, written

# Two senses of "bank" (one met 3 times, one 20), a person named Bank who was a painter, and "river bank".
DATA = """\
00000001 03 n 01 entity 0 000 | what is
00000002 17 n 01 geological_formation 0 001 @ 00000001 n 0000 | a form of the land
00000003 17 n 01 bank 0 001 @ 00000002 n 0000 | sloping land
00000004 06 n 01 structure 0 001 @ 00000001 n 0000 | what is built
00000005 06 n 01 bank 0 001 @ 00000004 n 0000 | a building
00000006 18 n 01 painter 0 001 @ 00000001 n 0000 | an artist
00000007 18 n 01 Bank 0 001 @i 00000006 n 0000 | a painter
"""
SENSES = """\
bank%1:06:00:: 00000005 1 20
bank%1:17:00:: 00000003 2 3
bank%1:18:00:: 00000007 3 0
"""


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("dog", "animal"),
        ("wolves", "animal"),
        ("otter", "animal"),
        ("wizard", "person"),
        ("beach", "place"),
        ("kitchens", "place"),
        ("skatepark", "place"),
        ("lighthouse", "building"),
        ("scarf", "clothing"),
        ("eyes", "body"),
        ("tulips", "plant"),
        ("sword", "thing"),
        ("picasso", "artist"),
        ("bokeh", "medium"),
        ("cottagecore", "medium"),
        ("surrealism", "medium"),
        ("shockwave", "thing"),
        ("sadness", "abstract"),
        ("glorbix", "thing"),
    ],
)
def test_kinds_of_words(word, expected):
    assert pictured_kind(word) == expected


def test_two_words_can_mean_what_the_second_alone_does_not():
    assert pictured_kind("light") == "medium"
    assert pictured_kind("light", "traffic") == "thing"
    assert noun_kinds("table") == ("building",)


def test_the_table_is_small_and_says_where_it_is_from():
    assert TABLE.stat().st_size < 45_000
    notes = (TABLE.parent / "README.md").read_text(encoding="utf-8")
    assert "WordNet" in notes
    assert "Princeton University" in (TABLE.parent / "WORDNET-LICENSE").read_text(encoding="utf-8")


def test_the_table_spells_words_by_what_they_share_with_the_word_before():
    assert list(spelled_out("AbeachBdCsheetA7-up")) == ["beach", "bd", "bdsheet", "7-up"]
    words = ["", "7-up", "a.k.a.", "beach", "beach_ball", "café", "x" * 40, "x" * 41]
    assert shortened(["beach", "beach_ball", "bed"]) == "AbeachF_ballCd"
    assert list(spelled_out(shortened(words))) == words


def test_the_program_writes_what_is_read():
    kinds = {"beach": ("place",), "beach_ball": ("thing",), "bed": ("support", "place"), "sea": ("place",)}
    for nouns in ([], ["sea", "bed", "unlisted"], ["sea", "beach", "bed", "beach_ball"]):
        assert read_table(written(kinds, nouns), nouns) == kinds
    _, combinations, of_nouns, others, of_others = (
        bz2.decompress(written(kinds, ["sea", "unlisted", "bed"])).decode("utf-8").split("\n")
    )
    assert combinations.split(";") == ["place", "support place", "thing"]
    assert (of_nouns, list(spelled_out(others)), of_others) == ('! "', ["beach", "beach_ball"], "!#")


def test_a_table_made_for_other_nouns_is_not_read():
    content = written({"sea": ("place",)}, ["sea", "bed"])
    for other in (["sea", "bad"], ["bed", "sea"], ["sea"], []):
        with pytest.raises(ImportError, match=r"spacy-lookups-data==1\.0\.5"):
            read_table(content, other)


def test_nouns_are_listed_once_in_the_order_of_their_last_letters():
    nouns = wordnet_nouns()
    assert len(nouns) == len(set(nouns)) > 50_000
    backwards = [word[::-1] for word in nouns]
    assert backwards == sorted(backwards)


def test_the_program_weighs_senses_by_how_often_they_were_met(tmp_path: Path):
    (tmp_path / "data.noun").write_text(DATA, encoding="latin-1")
    (tmp_path / "index.sense").write_text(SENSES, encoding="latin-1")
    assert word_kinds(tmp_path) == {"bank": ("building",)}
    (tmp_path / "index.sense").write_text(SENSES.replace(" 20\n", " 4\n"), encoding="latin-1")
    assert word_kinds(tmp_path) == {"bank": ("building", "place")}
    (tmp_path / "index.sense").write_text("bank%1:18:00:: 00000007 1 0\n", encoding="latin-1")
    assert word_kinds(tmp_path) == {"bank": ("artist",)}
