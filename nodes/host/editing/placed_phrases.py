"""Phrases of a prompt, and where in the picture they belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ...core.layout import Layout
from ...core.methods.structured_diffusion import PhraseAlone
from ...core.methods.word_places import Places, placed
from ...core.words.subjects import Subject, Subjects
from ..same_prompt import Encoded
from ..tokens import tokenize
from .phrases import encoded_alone, noun_phrases


@dataclass(frozen=True)
class PlacedPhrases:
    """Phrases of a prompt and where they belong.

    prompt, encoded: the text and its encoding, by which the sampler's conditionings are known. words, rows: of each
    phrase, its text and the rows of its tokens in the encoded prompt. places: of the phrases, in the same order. alone:
    phrases that are exchanged for themselves encoded alone, at all steps.
    """

    prompt: str
    encoded: Encoded
    words: tuple[str, ...]
    rows: tuple[tuple[int, ...], ...]
    places: Places
    alone: Sequence[PhraseAlone] = ()


def place_phrases(
    clip: Any, subjects: Subjects, layout: Layout | None, masks: Tensor | None, alone: bool
) -> PlacedPhrases:
    """The phrases of those subjects that have a place, by one of layout and masks.

    alone: whether they are also encoded alone. Raises ValueError as `placed` and `encoded_alone`.
    """
    prompt = subjects.prompt
    named, places = placed(subjects, layout, masks)
    items = _whole(named.items, noun_phrases(prompt, tokenize(clip, prompt)))
    how = "switch 'phrases_alone' off, or place another word"
    exchanged = encoded_alone(clip, prompt, items, how) if alone else ()
    texts, rows = tuple(item.text for item in items), tuple(item.positions() for item in items)
    return PlacedPhrases(prompt, Encoded.by(clip, prompt), texts, rows, places, exchanged)


def _whole(words: Sequence[Subject], phrases: Sequence[Subject]) -> list[Subject]:
    """The phrase that each word is in; the word itself where it is in none, or in one with another of the words."""
    found = []
    for word in words:
        around = [phrase for phrase in phrases if _holds(phrase, word)]
        own = len(around) == 1 and sum(_holds(around[0], other) for other in words) == 1
        found.append(around[0] if own else word)
    return found


def _holds(phrase: Subject, word: Subject) -> bool:
    return phrase.span[0] <= word.span[0] and word.span[1] <= phrase.span[1]
