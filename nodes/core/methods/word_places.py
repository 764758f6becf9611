"""Where each word of a prompt belongs in the picture: by boxes that name the words, or by a mask for each."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layout import Box, Layout
from ..words.subjects import Subject, Subjects
from .guidance import Part

# Chinese and Japanese have no spaces between words: there each character counts as one.
_UNSPACED = "\u3040-\u30ff\u3400-\u9fff"
_WORDS = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*")


class Places(Protocol):
    """Where each of S words belongs."""

    def shares(self, grid: tuple[int, int]) -> Tensor:
        """How much of each cell of a grid (h, w) of the whole picture is a word's own, float32 [S,h,w] from 0 to 1."""


@dataclass(frozen=True)
class Boxes:
    """Boxes for each word, at least one; where it has several, all of them are its place."""

    boxes: tuple[tuple[Box, ...], ...]

    def shares(self, grid: tuple[int, int]) -> Tensor:
        """See `Places`."""
        of_words = (torch.stack([Layout.share(box, *grid) for box in own]) for own in self.boxes)
        return torch.stack([own.amax(dim=0) for own in of_words])


@dataclass(frozen=True)
class Masks:
    """A mask for each word, float [S,H,W] from 0 to 1 of any size. Raises ValueError where one is empty."""

    masks: Tensor

    def __post_init__(self) -> None:
        empty = [i + 1 for i, mask in enumerate(self.masks) if not (mask > 0).any()]
        if empty:
            raise ValueError(f"mask {', '.join(map(str, empty))} is empty: each word needs a place of its own")

    def shares(self, grid: tuple[int, int]) -> Tensor:
        """See `Places`."""
        return F.interpolate(self.masks[:, None].float(), size=grid, mode="area")[:, 0].cpu()


def inside(places: Places, grid: tuple[int, int], part: Part) -> Tensor:
    """Which cells of a layer's grid [h,w] of this part of the latent are each word's own, bool [S,h,w] on the CPU.

    Those that its place covers to more than a half; where none is, those that it covers the most. None where the place
    lies outside of the part.
    """
    rows, columns = part.cells
    covered = F.interpolate(places.shares(part.grid)[:, None, rows, columns], size=grid, mode="area")[:, 0]
    own, most = covered > 0.5, covered.amax(dim=(-2, -1), keepdim=True)
    return torch.where(own.any(dim=(-2, -1), keepdim=True), own, (covered == most) & (most > 0))


def placed(subjects: Subjects, layout: Layout | None, masks: Tensor | None) -> tuple[Subjects, Places]:
    """The words that have a place, and their places, by one of the two. Raises ValueError as `in_boxes`, `in_masks`."""
    if (layout is None) == (masks is None):
        what = "Neither layout nor masks are" if layout is None else "Both layout and masks are"
        raise ValueError(
            f"{what} connected: connect one of them. layout, from Layout from Text, names the words; masks are one for "
            "each word, in the order of the prompt"
        )
    return in_boxes(subjects, layout) if masks is None else in_masks(subjects, masks)


def in_boxes(subjects: Subjects, layout: Layout) -> tuple[Subjects, Boxes]:
    """The words that the layout's boxes name, in the order of the prompt, and their boxes.

    A box names a word by its label (dog#2), or where the one's text is in the other's (a red dog, dog); words that are
    alike get the boxes that name them in turn. Raises ValueError for a box that names no word, with those there are.
    """
    found: dict[int, list[Box]] = {}
    for box in layout.boxes:
        for index in _named(box, subjects, found):
            found.setdefault(index, []).append(box)
    kept = sorted(found)
    items = tuple(subjects.items[index] for index in kept)
    return replace(subjects, items=items), Boxes(tuple(tuple(found[index]) for index in kept))


def in_masks(subjects: Subjects, masks: Tensor) -> tuple[Subjects, Masks]:
    """The words and a mask for each, from a MASK [S,H,W]. Raises ValueError unless there are as many, or as `Masks`."""
    if len(masks) != len(subjects.items):
        raise ValueError(
            f"there are {len(masks)} masks for {len(subjects.items)} words ({', '.join(subjects.labels)}). Connect one "
            "mask for each word, in the order of the prompt; 'role' and 'override' of Parse Subjects or Prompt with "
            "Words choose the words"
        )
    return subjects, Masks(masks)


def naming(words: str, subjects: Subjects) -> list[int]:
    """Numbers of the subjects that some words name: by a label (dog#2), or where the one's text is in the other's."""
    said, text = _words(words), words.strip().casefold()
    exact = [i for i, label in enumerate(subjects.labels) if label.casefold() == text]
    texts = [_words(item.text) for item in subjects.items]
    return exact or [i for i, own in enumerate(texts) if _is_in(own, said) or _is_in(said, own)]


def _named(box: Box, subjects: Subjects, placed: dict[int, list[Box]]) -> list[int]:
    """Numbers of the subjects that a box names."""
    named: dict[tuple[str, ...], list[int]] = {}
    for i in naming(box.words, subjects):
        named.setdefault(_words(subjects.items[i].text), []).append(i)
    if not named:
        raise ValueError(
            f"the box of '{box.words}' names no word of the prompt; its words are: {_listed(subjects.items)}. Write "
            "one of them in the layout, or name the word in 'override' of Parse Subjects or Prompt with Words"
        )
    return [next((i for i in alike if i not in placed), alike[-1]) for alike in named.values()]


def _words(text: str) -> tuple[str, ...]:
    return tuple(_WORDS.findall(text.casefold()))


def _is_in(part: tuple[str, ...], whole: tuple[str, ...]) -> bool:
    """Whether words follow each other among others."""
    count = len(part)
    return count > 0 and any(whole[i : i + count] == part for i in range(len(whole) - count + 1))


def _listed(items: tuple[Subject, ...]) -> str:
    return ", ".join(item.label for item in items) or "none"
