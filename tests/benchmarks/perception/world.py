"""The held-out toy pictures, and the toy model that looks at them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from explainable_latents.nodes.core.maps.masks import enlarge
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.subjects import Subjects
from explainable_latents.nodes.host.tokens import tokenize

from ...tools.toy_world.pictures import Picture, random_picture
from ...tools.toy_world.quality import HELD_OUT, Toy

PICTURES = 200

# The noise levels: training timesteps, of 1000.
TIMESTEPS = (250, 500, 750)

# The table that masks of a picture's subject go into.
IOU = "IoU with the subject's mask"


def column(timestep: int) -> str:
    """How a table's column for a noise level is called."""
    return f"t = {timestep}"


@dataclass(frozen=True)
class Example:
    """A held-out picture. seed: of the picture, and of the noise that is added to it."""

    seed: int
    picture: Picture

    @property
    def subject(self) -> str:
        """The word for what the picture shows."""
        return self.picture.kind.subject

    @property
    def prompt(self) -> str:
        """A prompt that describes it, `dog on beach`."""
        return f"{self.subject} on {self.picture.kind.scene}"

    @property
    def image(self) -> Tensor:
        """An IMAGE [1,128,128,3]."""
        return torch.from_numpy(self.picture.image.copy()).float()[None] / 255

    def iou(self, mask: Tensor) -> float:
        """Intersection over union of a mask with the true one: bool, [h,w] on any grid that divides the picture's."""
        truth = self.picture.mask
        found = enlarge(mask, truth.shape[0] // mask.shape[0]).numpy()
        return float((found & truth).sum() / np.maximum(1, (found | truth).sum()))


class World:
    """The first `count` held-out pictures, and a toy model as a stock ComfyUI loads it.

    checkpoint: of the toy, None for the first one. toy: `model`, `clip` and `vae`, and `encode(text)` for a
    CONDITIONING.
    """

    def __init__(self, count: int = PICTURES, checkpoint: Path | None = None) -> None:
        self.toy = Toy(checkpoint)
        self._count = count

    @cached_property
    def examples(self) -> list[Example]:
        """The pictures."""
        return [Example(seed, random_picture(seed)) for seed in range(HELD_OUT, HELD_OUT + self._count)]

    @cached_property
    def latents(self) -> dict[int, dict[str, Tensor]]:
        """The seed of each picture -> its LATENT."""
        return {each.seed: {"samples": self.toy.vae.encode(each.image)} for each in self.examples}

    def each(self, method: str) -> Iterator[Example]:
        """The pictures one after the other, with a progress bar of that name."""
        return iter(tqdm(self.examples, desc=method))

    def subjects(self, text: str, words: str) -> Subjects:
        """What Parse Subjects makes of a prompt and these words of it (its `override`), without the scene."""
        return parse(text, tokenize(self.toy.clip, text), words).with_role("subject")

    def asked(self, example: Example, timestep: int) -> tuple[Any, ...]:
        """What `host.one_call` asks for: the picture's subject, in its prompt, at a noise level; its own noise."""
        subjects = self.subjects(example.prompt, example.subject)
        latent, positive = self.latents[example.seed], self.toy.encode(example.prompt)
        return self.toy.model, positive, latent, subjects, level(timestep), example.seed


def level(timestep: int) -> float:
    """The noise level of a training timestep, as nodes have it."""
    return timestep / 999
