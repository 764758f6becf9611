"""Find Points and Carry Mask: how often a named point (eye, wheel) is found in another picture of the same subject.

PCK@0.1: a point counts as found within a tenth of the longer side of the subject's box. Pairs of held-out pictures of
the first world, which the committed model was trained on, and of single subjects of the second: of other sizes, in
other places, half of them facing left, which that model has never seen.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from explainable_latents.nodes.core.methods.correspondence import carry_mask, find_points
from explainable_latents.nodes.host.features.picture_features import FeatureReader

from ....tools.toy_world.groups import random_group
from ....tools.toy_world.pictures import Picture, random_picture
from ....tools.toy_world.quality import HELD_OUT
from ....tools.toy_world.subjects import LANDMARKS, landmark
from ..tables import Row, mean_rows
from ..world import World

NEAR = 0.1
SIZE = (128, 128)
LEVELS = (0.1, 0.26, 0.5)  # DIFT: 0.26
BLOCKS = {"output.0 (8 x 8)": "output.0", "output.1 (16 x 16, auto)": "output.1", "output.2 (16 x 16)": "output.2"}
NOISES, NEIGHBOURS = 8, 3  # the nodes' defaults
PATCH = 5  # pixels on a side of which colours are compared
SAME_PLACE, COLOUR = "same place", "nearest colour"


@dataclass(frozen=True)
class Shown:
    """A picture of one subject: IMAGE [1,128,128,3], bool mask [128,128], and its named points (x, y) in pixels."""

    subject: str
    image: Tensor
    mask: np.ndarray
    points: dict[str, tuple[float, float]]

    @property
    def side(self) -> int:
        """The longer side of the subject's box."""
        return max(int(np.ptp(np.flatnonzero(self.mask.any(axis)))) + 1 for axis in (0, 1))


def first_world(picture: Picture) -> Shown:
    """A picture of the first world with its named points."""
    figure, left, top = picture.figure
    subject, points = picture.kind.subject, {}
    for name in LANDMARKS[subject]:
        x, y = landmark(subject, name, figure.width)
        points[name] = (x + left, y + top)
    return Shown(subject, _image(picture.image), picture.mask, points)


def second_world() -> Iterator[Shown]:
    """The second world's held-out pictures of one subject that are not the first world's too."""
    for seed in itertools.count(HELD_OUT):
        group = random_group(seed)
        if len(group.things) == 1 and not np.array_equal(group.image, random_picture(seed).image):
            (thing,) = group.things
            yield Shown(thing.subject, _image(group.image), thing.mask, thing.points)


def _image(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).float()[None] / 255


def pairs(pictures: Iterable[Shown]) -> list[tuple[Shown, Shown]]:
    """Pictures of the same subject in pairs that have a named point in common, each picture in one pair at most."""
    waiting: dict[str, Shown] = {}
    made = []
    for picture in pictures:
        other = waiting.pop(picture.subject, None)
        if other is None or not set(other.points) & set(picture.points):
            waiting[picture.subject] = picture
        else:
            made.append((other, picture))
    return made


def colours(picture: Shown) -> Tensor:
    """The mean colour around every pixel and a constant, [4,128,128]: the largest cosine is the nearest colour."""
    mean = F.avg_pool2d(picture.image.movedim(-1, 1), PATCH, 1, PATCH // 2, count_include_pad=False)[0]
    # Beside a large constant all colours lie close together, and the smallest angle is the smallest distance.
    return torch.cat([mean - 0.5, torch.full_like(mean[:1], 4.0)])


def pck(found: Tensor, true: Tensor, side: int) -> float:
    """The share of points [P,2] that were found."""
    return float(((found - true).norm(dim=1) <= NEAR * side).float().mean())


def iou(shares: Tensor, truth: np.ndarray) -> float:
    """Of the shares [h,w] of votes, enlarged as Carry Mask does and above one half, with the true mask."""
    inside = F.interpolate(shares[None, None].float(), size=SIZE, mode="bilinear", align_corners=False)[0, 0] > 0.5
    return float((inside.numpy() & truth).sum() / (inside.numpy() | truth).sum())


def rows(world: World) -> list[Row]:
    """PCK@0.1 and IoU of the carried mask, per world, block and noise level, beside the baselines."""
    worlds = {
        "first world": pairs(first_world(each.picture) for each in world.examples),
        "other sizes and places": pairs(itertools.islice(second_world(), len(world.examples))),
    }
    tables: dict[str, dict[str, dict[str, list[float]]]] = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    for name, chosen in worlds.items():
        for a, b in tqdm(chosen, desc=f"correspondence, {name}"):
            measure(world, a, b, tables["PCK@0.1 of Find Points"], tables["IoU of Carry Mask"], name)
    return [row for table, values in tables.items() for row in mean_rows(table, values)]


def measure(world: World, a: Shown, b: Shown, points: dict, masks: dict, column: str) -> None:
    """Add the numbers of one pair to both tables."""
    shared = [name for name in a.points if name in b.points]
    asked, true = (torch.tensor([each.points[name] for name in shared]) for each in (a, b))
    points[SAME_PLACE][column].append(pck(asked, true, b.side))
    masks[SAME_PLACE][column].append(float((a.mask & b.mask).sum() / (a.mask | b.mask).sum()))
    of_colour = [colours(each) for each in (a, b)]
    found = find_points(*of_colour, asked, SIZE, SIZE).points
    points[COLOUR][column].append(pck(found, true, b.side))
    small = [F.avg_pool2d(each, 4) for each in of_colour]
    masks[COLOUR][column].append(iou(carry_mask(*small, on_grid(a.mask, 32), NEIGHBOURS), b.mask))
    latents = [world.toy.vae.encode(each.image) for each in (a, b)]
    reader = FeatureReader(world.toy.model, world.toy.encode(""), tuple(BLOCKS.values()), LEVELS, NOISES, 0)
    of_a, of_b = (next(reader.read(each, lambda *_: None)) for each in latents)
    for level, features_a, features_b in zip(LEVELS, of_a, of_b, strict=True):
        for label, block in BLOCKS.items():
            name, both = f"{label}, noise {level}", (features_a[block], features_b[block])
            found = find_points(*both, asked, SIZE, SIZE).points
            points[name][column].append(pck(found, true, b.side))
            cells = on_grid(a.mask, both[0].shape[-1])
            masks[name][column].append(iou(carry_mask(*both, cells, NEIGHBOURS), b.mask))


def on_grid(mask: np.ndarray, cells: int) -> Tensor:
    """A mask averaged over this many cells on each side."""
    return F.avg_pool2d(torch.from_numpy(mask).float()[None], len(mask) // cells)[0]
