"""What a checkpoint of the second world draws: which prompted subjects appear, and in which colours."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from .cases import HELD_OUT
from .group_judge import GroupJudge, Seen, judge_groups
from .groups import random_group
from .loaded import Toy
from .pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES
from .quality_attention import article
from .table import percent, table

SAMPLING = (3.0, "euler", "normal")


@dataclass(frozen=True)
class Prompt:
    """What is asked for: subject -> colour ("": none named), and the scene."""

    things: dict[str, str]
    scene: str

    @property
    def text(self) -> str:
        """The prompt."""
        named = [f"{colour} {subject}".strip() for subject, colour in self.things.items()]
        return " and ".join(f"{article(words)} {words}" for words in named) + f" on the {self.scene}"


@dataclass(frozen=True)
class Answer:
    """A prompt, the pictures [N,3,128,128] that a checkpoint drew for it, and what the judge sees in each."""

    prompt: Prompt
    pictures: Tensor
    seen: list[Seen]

    def appears(self, subject: str) -> float:
        """The share of the pictures in which a subject is seen."""
        return statistics.mean(subject in seen.subjects for seen in self.seen)

    def coloured(self, subject: str) -> list[bool]:
        """Of the pictures in which the subject is seen: whether it has the prompted colour."""
        return [
            seen.subjects[subject][0] == self.prompt.things[subject] for seen in self.seen if subject in seen.subjects
        ]

    def neglect(self) -> float:
        """The share of the pictures without one of the prompted subjects."""
        return statistics.mean(not self.prompt.things.keys() <= seen.subjects.keys() for seen in self.seen)

    def mixing(self) -> float:
        """The share of the pictures with all prompted subjects, but a named colour on the wrong one or on none."""
        return statistics.mean(
            self.prompt.things.keys() <= seen.subjects.keys()
            and any(colour not in ("", seen.subjects[s][0]) for s, colour in self.prompt.things.items())
            for seen in self.seen
        )

    def others(self) -> float:
        """The share of the pictures with a subject that nobody asked for."""
        return statistics.mean(bool(seen.subjects.keys() - self.prompt.things.keys()) for seen in self.seen)


def single_prompts(coloured: bool) -> list[Prompt]:
    """Every subject on every scene, 49 prompts."""
    rng = np.random.default_rng(61)
    pairs = itertools.product(SUBJECT_NAMES, SCENE_NAMES)
    return [Prompt({s: str(rng.choice(COLOUR_NAMES)) if coloured else ""}, scene) for s, scene in pairs]


def pair_prompts(coloured: bool) -> list[Prompt]:
    """Every two subjects in either order, 42 prompts; two different colours."""
    rng = np.random.default_rng(62)
    prompts = []
    for subjects in itertools.permutations(SUBJECT_NAMES, 2):
        colours = rng.choice(COLOUR_NAMES, 2, replace=False) if coloured else ("", "")
        things = {s: str(c) for s, c in zip(subjects, colours, strict=True)}
        prompts.append(Prompt(things, str(rng.choice(SCENE_NAMES))))
    return prompts


def answers(toy: Toy, judge: GroupJudge, prompts: Sequence[Prompt], each: int, first_seed: int) -> list[Answer]:
    """What a checkpoint draws: `each` pictures for every prompt, with seeds of their own."""
    found = []
    for i, prompt in enumerate(tqdm(prompts)):
        pictures = toy.generate(prompt.text, range(first_seed + i * each, first_seed + (i + 1) * each), *SAMPLING)
        found.append(Answer(prompt, pictures, judge_groups(judge, pictures)))
    return found


def outcomes(answered: dict[str, list[Answer]]) -> str:
    """A table: for each kind of prompts how often all is as prompted, a subject is missing, a colour is wrong."""
    rows = []
    for kind, each in answered.items():
        parts = [(a.neglect(), a.mixing(), a.others()) for a in each]
        neglect, mixing, others = zip(*parts, strict=True)
        right = [1 - n - m for n, m, _ in parts]
        pictures = sum(len(a.pictures) for a in each)
        rows.append((kind, pictures, *(percent(values) for values in (right, neglect, mixing, others))))
    headings = ("prompts", "pictures", "as prompted", "a subject is missing", "a colour is wrong", "a subject too many")
    return table(headings, rows)


def by_subject(answered: dict[str, list[Answer]]) -> str:
    """A table: how often each subject appears when it is prompted."""
    rows = []
    for s in SUBJECT_NAMES:
        rows.append((s, *(percent([a.appears(s) for a in each if s in a.prompt.things]) for each in answered.values())))
    return table(("subject appears", *answered), rows)


def by_colour(answered: dict[str, list[Answer]]) -> str:
    """A table: how often each colour is on the subject that it is prompted for, where that subject appears."""
    rows = []
    for colour in COLOUR_NAMES:
        cells = []
        for each in answered.values():
            asked = [(a, s) for a in each for s, named in a.prompt.things.items() if named == colour]
            right = [statistics.mean(a.coloured(s)) for a, s in asked if a.coloured(s)]
            cells.append(percent(right))
        rows.append((colour, *cells))
    return table(("colour is right", *answered), rows)


def judge_quality(judge: GroupJudge, count: int = 512) -> dict[str, float]:
    """How well the judge does on held-out pictures: subjects all found and none too many, colours, scenes, mask IoU."""
    groups = [random_group(seed) for seed in range(HELD_OUT, HELD_OUT + count)]
    images = torch.from_numpy(np.stack([group.image for group in groups])).permute(0, 3, 1, 2).float() / 255
    right: dict[str, list[float]] = {"one subject": [], "two subjects": [], "colours": [], "scenes": [], "mask IoU": []}
    for group, seen in zip(groups, judge_groups(judge, images), strict=True):
        right["two subjects" if len(group.things) == 2 else "one subject"].append(
            {t.subject for t in group.things} == seen.subjects.keys()
        )
        right["scenes"].append(group.scene == seen.scene)
        for thing in group.things:
            if thing.subject in seen.subjects:
                colour, mask = seen.subjects[thing.subject]
                right["colours"].append(colour == thing.colour)
                truth = torch.from_numpy(thing.mask)
                right["mask IoU"].append(float((mask & truth).sum() / (mask | truth).sum()))
    return {name: statistics.mean(values) for name, values in right.items()}
