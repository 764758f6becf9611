"""The second world's judge: which subjects a picture shows, in which colour, and where each one is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .groups import random_group
from .judge import Judge, fit, loaded
from .pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES

FIRST_SEED = 300_000  # pictures of the judge's training, which the diffusion model never sees
SUBJECTS, COLOURS = len(SUBJECT_NAMES), len(COLOUR_NAMES)


class GroupVerdict(NamedTuple):
    """Logits: which subjects are there [B,7], each one's colour [B,7,6], the scene [B,7], masks [B,7,128,128]."""

    present: Tensor
    colour: Tensor
    scene: Tensor
    masks: Tensor


@dataclass(frozen=True)
class Seen:
    """What the judge sees in one picture: subject -> (colour, mask bool [128,128]), and the scene."""

    subjects: dict[str, tuple[str, Tensor]]
    scene: str


class GroupJudge(Judge):
    """The first judge's network with a mask per subject; a subject's colour is read where its mask is."""

    def __init__(self) -> None:
        super().__init__()
        self.mask = nn.Conv2d(24, 4 * SUBJECTS, 1)
        self.colour = nn.Sequential(nn.Linear(24, 48), nn.SiLU(), nn.Linear(48, COLOURS))

    def forward(self, images: Tensor) -> GroupVerdict:
        """Judge `images`, float [B,3,128,128] in [0,1]."""
        features, places = self.look(images)
        masks = F.pixel_shuffle(self.mask(places), 2)
        share = F.avg_pool2d(masks.float(), 2).flatten(2).softmax(-1)  # [B,7,64·64]
        colour = self.colour(share @ places.float().flatten(2).transpose(1, 2))
        return GroupVerdict(self.subject(features), colour, self.scene(features), masks)


def _batch(seeds: range) -> tuple[Tensor, ...]:
    """Pictures [B,3,128,128], masks [B,7,128,128], colours [B,7] (-1: not there) and scenes [B]."""
    groups = [random_group(seed) for seed in seeds]
    images = torch.from_numpy(np.stack([group.image for group in groups])).permute(0, 3, 1, 2).float() / 255
    masks = torch.zeros(len(groups), SUBJECTS, *images.shape[-2:])
    colours = torch.full((len(groups), SUBJECTS), -1)
    for i, group in enumerate(groups):
        for thing in group.things:
            s = SUBJECT_NAMES.index(thing.subject)
            masks[i, s] = torch.from_numpy(thing.mask)
            colours[i, s] = COLOUR_NAMES.index(thing.colour)
    return images, masks, colours, torch.tensor([SCENE_NAMES.index(group.scene) for group in groups])


def train_group_judge(steps: int, vae: nn.Module, device: torch.device, snapshot: Path, batch: int = 32) -> GroupJudge:
    """Train the judge on fresh pictures of the second world. snapshot: see `Snapshot`."""

    def loss(verdict: GroupVerdict, masks: Tensor, colours: Tensor, scenes: Tensor) -> Tensor:
        there = colours >= 0
        found = F.binary_cross_entropy_with_logits(verdict.present.float(), there.float())
        found = found + F.cross_entropy(verdict.colour.float()[there], colours[there])
        found = found + F.cross_entropy(verdict.scene.float(), scenes)
        # Where a subject is not there its mask is never read; six empty masks beside a true one would teach emptiness.
        return found + 6 * F.binary_cross_entropy_with_logits(verdict.masks.float()[there], masks[there])

    torch.manual_seed(7)
    generator = torch.Generator().manual_seed(8)
    seeds = range(FIRST_SEED, FIRST_SEED + steps * batch)
    return fit(GroupJudge().to(device), loss, _batch, seeds, batch, vae, generator, snapshot)


def load_group_judge(path: Path = Path(__file__).parent / "group_judge.safetensors") -> GroupJudge:
    """Load the committed judge in float32."""
    return loaded(GroupJudge(), path)


@torch.no_grad()
def judge_groups(judge: GroupJudge, images: Tensor) -> list[Seen]:
    """What the judge sees in each of `images` [B,3,128,128] in [0,1]."""
    seen = []
    for chunk in images.split(32):
        verdict = judge(chunk)
        for i in range(len(chunk)):
            there = (verdict.present[i] > 0).nonzero().flatten().tolist()
            colours = verdict.colour[i].argmax(-1).tolist()
            subjects = {SUBJECT_NAMES[s]: (COLOUR_NAMES[colours[s]], verdict.masks[i, s] > 0) for s in there}
            seen.append(Seen(subjects, SCENE_NAMES[int(verdict.scene[i].argmax())]))
    return seen
