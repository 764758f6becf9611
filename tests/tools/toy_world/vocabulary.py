"""The words the toy text encoder knows, as rows of a compact table over the real CLIP BPE vocabulary."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor

from .groups import ALONE, PATTERNS, PLACES, SIDES
from .modules import TOKENS
from .pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES, TEMPLATES

END = 49407
_ADJECTIVES = tuple(itertools.product(ALONE, COLOUR_NAMES, SIDES))
_PLACES = {name: PLACES.get(name, (name,)) for name in SCENE_NAMES}
_NAMES = (*SUBJECT_NAMES, *itertools.chain(*_PLACES.values()), *COLOUR_NAMES, *ALONE, *SIDES)
_MEANINGFUL = {f"{name}</w>" for name in _NAMES}  # as the tokenizer writes whole words


def first_world() -> list[str]:
    """Every caption of the first world."""
    names = (f"{colour} {subject}" for colour, subject in itertools.product(COLOUR_NAMES, SUBJECT_NAMES))
    return [t.format(subject=s, scene=c) for t, s, c in itertools.product(TEMPLATES, names, SCENE_NAMES)]


def second_world() -> list[str]:
    """Captions that hold every word of the second world, which knows the first one's as well."""
    scenes = [*itertools.chain(*_PLACES.values())]
    things = [f"a {size} thing and an {colour} thing on the {side}" for size, colour, side in _ADJECTIVES]
    return [*first_world(), *things, *(pattern.format(things="a cat", scene=s) for pattern in PATTERNS for s in scenes)]


class Vocabulary:
    """Maps captions to table rows; row 0 stands for every token that no caption contains.

    Parameters
    ----------
    comfyui: the ComfyUI folder, whose CLIP tokenizer files are used.
    texts: captions that hold every word between them.
    """

    def __init__(self, comfyui: Path, texts: Iterable[str]):
        from transformers import CLIPTokenizer

        self._tokenizer = CLIPTokenizer.from_pretrained(comfyui / "comfy" / "sd1_tokenizer")
        self._cache = {text: tuple(self._tokenizer(text)["input_ids"]) for text in ["", *texts]}
        self.token_ids = sorted(set(itertools.chain(*self._cache.values())))
        self._row = {token: row for row, token in enumerate(self.token_ids, start=1)}
        known = {self._tokenizer.bos_token_id, *map(self._tokenizer.convert_tokens_to_ids, _MEANINGFUL)}
        self._grammar = torch.tensor([self._row[token] for token in self.token_ids if token not in known])

    @property
    def rows(self) -> int:
        """Number of rows of the compact table."""
        return len(self.token_ids) + 1

    def is_grammar(self, rows: Tensor) -> Tensor:
        """Where `rows` of the table stand for words that name nothing (*a*, *on the*) or the end of the text."""
        return torch.isin(rows, self._grammar)

    def encode(self, captions: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """Return table rows, a mask of what is not padding and a mask of the end-of-text token, each [B,77]."""
        rows = torch.zeros(len(captions), TOKENS, dtype=torch.long)
        keep = torch.zeros(len(captions), TOKENS, dtype=torch.bool)
        end = torch.zeros(len(captions), TOKENS, dtype=torch.bool)
        for i, text in enumerate(captions):
            if text not in self._cache:
                self._cache[text] = tuple(self._tokenizer(text)["input_ids"])
            ids = self._cache[text]
            rows[i] = self._row.get(END, 0)
            rows[i, : len(ids)] = torch.tensor([self._row.get(token, 0) for token in ids])
            keep[i, : len(ids)] = True
            end[i, len(ids) - 1] = True
        return rows, keep, end
