"""The words the toy text encoder knows, as rows of a compact table over the real CLIP BPE vocabulary."""

import itertools
from pathlib import Path

import torch
from torch import Tensor

from .modules import TOKENS
from .pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES, TEMPLATES

END = 49407


class Vocabulary:
    """Maps captions to table rows; row 0 stands for every token that no caption contains.

    Parameters
    ----------
    comfyui: the ComfyUI folder, whose CLIP tokenizer files are used.
    """

    def __init__(self, comfyui: Path):
        from transformers import CLIPTokenizer

        self._tokenizer = CLIPTokenizer.from_pretrained(comfyui / "comfy" / "sd1_tokenizer")
        names = (f"{colour} {subject}" for colour, subject in itertools.product(COLOUR_NAMES, SUBJECT_NAMES))
        texts = [t.format(subject=s, scene=c) for t, s, c in itertools.product(TEMPLATES, names, SCENE_NAMES)]
        self._cache = {text: tuple(self._tokenizer(text)["input_ids"]) for text in ["", *texts]}
        self.token_ids = sorted(set(itertools.chain(*self._cache.values())))
        self._row = {token: row for row, token in enumerate(self.token_ids, start=1)}

    @property
    def rows(self) -> int:
        """Number of rows of the compact table."""
        return len(self.token_ids) + 1

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
