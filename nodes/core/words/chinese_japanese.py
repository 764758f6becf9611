"""Chinese and Japanese: which words of a prompt are its subjects and which its scene.

Their scripts have no spaces between words, so a library cuts the text: jieba (Chinese) or janome (Japanese), where the
user has installed it. The rules here only use the part of speech that it gives to each word.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from typing import Any, Literal

from .scripts import is_unspaced, language_of
from .subjects import Role

# The library that cuts each language, by the name under which it is installed and imported.
LIBRARIES = {"Chinese": "jieba", "Japanese": "janome"}

# What a word does. at: makes the noun before it a place (上, に). in: makes the noun after it a place (在). of: makes
# the noun before it say something about the next one (的, の). and: joins nouns. unseen: a noun of which nothing is
# shown, such as "photo". stop: ends a clause.
Kind = Literal["noun", "unseen", "attribute", "at", "in", "of", "and", "verb", "stop", "other"]

_UNSEEN = frozenset(
    re.findall(
        r"\w+",
        """
        照片 图片 图像 肖像 画 插画 油画 水彩 水彩画 素描 摄影 特写 风格 质量 品质 画质 杰作 细节 光 光线 阳光 背景 氛围
        电影 高清 分辨率
        写真 画像 絵 絵画 油絵 イラスト 風景画 肖像画 スタイル 品質 高品質 傑作 最高 詳細 雰囲気 映画 解像度
        """,
    )
)
_CHINESE_KINDS: dict[str, Kind] = {"p": "other", "f": "at", "c": "and", "v": "verb", "a": "attribute", "b": "attribute"}
_CHINESE_WORDS: dict[str, Kind] = {"在": "in", "于": "in", "的": "of", "之": "of", **dict.fromkeys("和与跟", "and")}
_CHINESE_PLACE_ENDINGS = "上里中内"  # 花园里 may be one word
_JAPANESE_PLACES = frozenset(
    (*"上中下前横隣奥外間", "そば", "近く", "後ろ", "うえ", "なか", "した", "まえ", "よこ", "となり")
)
_JAPANESE_PARTICLES: dict[str, Kind] = {"に": "at", "で": "at", "の": "of", "と": "and", "や": "and"}
_JAPANESE_NOUNS = ("一般", "固有名詞", "サ変接続", "接尾")


@dataclass(frozen=True)
class Word:
    """A word at characters [start, end) of the text, and what it does."""

    start: int
    end: int
    kind: Kind


@lru_cache(maxsize=32)
def segment(text: str) -> tuple[Word, ...] | None:
    """Return the words of a Chinese or Japanese text with what they do, Latin ones too.

    None where the text is in neither language, or the library for it is not installed.
    """
    language = language_of(text)
    library = LIBRARIES.get(language)
    if library is None or find_spec(library) is None:
        return None
    cut, kind_of = (_cut_chinese, _chinese_kind) if language == "Chinese" else (_cut_japanese, _japanese_kind)
    return tuple(_placed(text, cut(text), kind_of))


def find_unspaced_roles(words: Sequence[Word], whole_phrase: bool, main: bool) -> list[tuple[int, int, Role]]:
    """Return (start, end, role) for every subject and scene among the words, characters of the text, in order.

    whole_phrase: with what describes the noun, instead of the noun alone. main: of the subjects only the first and what
    "and" joins to it.
    """
    kinds = [word.kind for word in words]
    roles: list[tuple[int, Role]] = []
    inside = False
    for i, kind in enumerate(kinds):
        after = (*kinds[i + 1 : i + 3], "stop", "stop")
        if kind in ("in", "verb", "stop"):
            inside = kind == "in"
        elif kind == "noun" and after[0] != "noun":
            if "at" in (after[0], after[1] if after[0] == "of" else None):
                roles.append((i, "scene"))
                inside = False
            elif after[0] != "of" or _next_noun(kinds, i) == "unseen":
                roles.append((i, "scene" if inside else "subject"))
                inside = False
    kept = _main(kinds, roles) if main else roles
    return [(words[_first(kinds, i) if whole_phrase else i].start, words[i].end, role) for i, role in kept]


def _main(kinds: Sequence[Kind], roles: Sequence[tuple[int, Role]]) -> list[tuple[int, Role]]:
    """Return the scenes, the first subject and the subjects that "and" joins to it."""
    kept: list[tuple[int, Role]] = []
    last: int | None = None
    joined = True
    for i, role in roles:
        if role == "subject" and joined:
            between = kinds[last + 1 : i] if last is not None else ("and",)
            joined = "and" in between and not {"verb", "stop", "in", "at"}.intersection(between)
            if joined:
                last = i
        if role == "scene" or i == last:
            kept.append((i, role))
    return kept


def _next_noun(kinds: Sequence[Kind], i: int) -> Kind | None:
    return next((kind for kind in kinds[i + 1 :] if kind in ("noun", "unseen")), None)


def _first(kinds: Sequence[Kind], head: int) -> int:
    """Return where the phrase of a noun begins."""
    first = head
    while first > 0 and kinds[first - 1] in ("noun", "attribute", "of"):
        first -= 1
    return first + (kinds[first] == "of")


def _placed(text: str, cut: Iterator[tuple[str, str]], kind_of: Callable[[str, str], Kind]) -> Iterator[Word]:
    """Yield the words with their places. The libraries leave nothing out but white space."""
    end = 0
    for surface, tag in cut:
        start = text.index(surface, end)
        end = start + len(surface)
        if all(map(is_unspaced, surface)):
            yield Word(start, end, "unseen" if surface in _UNSEEN else kind_of(surface, tag))
        elif surface.strip():
            yield Word(start, end, "and" if surface == "、" else "other" if surface.isalnum() else "stop")


def _cut_chinese(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of a Chinese text and jieba's tags."""
    import jieba
    from jieba import posseg

    jieba.setLogLevel(logging.WARNING)
    for word, tag in posseg.cut(text):
        if len(word) > 1 and tag[0] in "nsj" and word[-1] in _CHINESE_PLACE_ENDINGS:
            yield word[:-1], tag
            yield word[-1], "f"
        else:
            yield word, tag


def _chinese_kind(word: str, tag: str) -> Kind:
    if word in _CHINESE_WORDS:
        return _CHINESE_WORDS[word]
    return "noun" if tag[0] in "nsj" else _CHINESE_KINDS.get(tag[0], "other")


def _cut_japanese(text: str) -> Iterator[tuple[str, str]]:
    """Yield the words of a Japanese text and janome's parts of speech."""
    for token in _japanese_tokenizer().tokenize(text):
        yield token.surface, token.part_of_speech


@lru_cache(maxsize=1)
def _japanese_tokenizer() -> Any:
    from janome.tokenizer import Tokenizer

    return Tokenizer()


def _japanese_kind(word: str, tag: str) -> Kind:
    part, detail, *_ = tag.split(",")
    if part == "名詞":
        if word in _JAPANESE_PLACES:
            return "at"
        return "noun" if detail in _JAPANESE_NOUNS else "other"
    if part == "助詞":
        return _JAPANESE_PARTICLES.get(word, "other")
    return "verb" if part == "動詞" else "attribute" if part in ("形容詞", "接頭詞") else "other"
