"""The second toy world: seeded pictures of one or two subjects on a scene, with exact masks, boxes and landmarks.

Beside the first world's pictures (`pictures.py`), which are a part of it, subjects have sizes and sides here, may face
left, and come in pairs, which a model can mix up or forget.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .pictures import COLOUR_NAMES, SCENE_NAMES, SUBJECT_NAMES, Kind, caption, random_picture
from .scenes import SIZE, draw_scene
from .subjects import LANDMARKS, PALETTE, Point, draw_subject, landmark

# Shares of the picture's side, alone and beside another subject.
ALONE = {"small": (0.34, 0.42), "large": (0.58, 0.68)}
BESIDE = {"small": (0.30, 0.35), "large": (0.41, 0.46)}
SIDES = ("left", "right")

FIRST_WORLD, OTHER_PLACES = 0.25, 0.5  # shares of pictures as in the first world; from there to here: one, elsewhere
OVERLAPPING = 0.1  # share of the pairs in which one subject may hide a part of the other
LEAST_VISIBLE = 0.6  # of a subject that is partly hidden

SIDE_NAMED, COLOUR_NAMED, SIZE_NAMED = 0.25, 0.6, 0.2  # shares of the things whose caption says it
PLACES = {"highway": ("highway", "road"), "cloud": ("cloud", "clouds")}
PATTERNS = (
    "{things} on {scene}",
    "{things} on the {scene}",
    "{things} in the {scene}",
    "{things} at the {scene}",
    "a photo of {things} on the {scene}",
    "a picture of {things} on {scene}",
    "a drawing of {things} at the {scene}",
)


@dataclass(frozen=True)
class Named:
    """What a caption can say of one subject: its name and colour, small or large, left or right (of its centre)."""

    subject: str
    colour: str
    size: str
    side: str


@dataclass(frozen=True)
class Thing(Named):
    """One subject as it was drawn.

    mirrored: it faces left. mask: bool [128,128], what is visible of it.
    box: (left, top, right, bottom) of the mask, right and bottom outside.
    points: landmarks that are visible, name -> (x, y) in pixels.
    """

    mirrored: bool
    mask: np.ndarray
    box: tuple[int, int, int, int]
    points: dict[str, Point]


@dataclass(frozen=True)
class Group:
    """`image` uint8 [128,128,3], the things in it (one or two, the nearer one last) and the scene's name."""

    image: np.ndarray
    things: tuple[Thing, ...]
    scene: str


@dataclass(frozen=True)
class _Placed:
    subject: str
    colour: str
    size: str
    mirrored: bool
    figure: Image.Image
    left: int
    top: int

    def alpha(self) -> np.ndarray:
        """Whether each pixel of the picture is covered, hidden or not."""
        plane = Image.new("L", (SIZE, SIZE))
        plane.paste(self.figure.getchannel("A"), (self.left, self.top))
        return np.asarray(plane) > 127


def random_group(seed: int) -> Group:
    """Draw a picture chosen by `seed`; the same seed always gives the same picture.

    A quarter are pictures of the first world, a quarter show one subject of another size elsewhere, the rest show two
    different subjects, one on either side.
    """
    rng = np.random.default_rng([seed, 4051])
    choice = rng.random()
    if choice < FIRST_WORLD:
        return first_world_group(seed)
    count = 1 if choice < OTHER_PLACES else 2
    return make_group(tuple(rng.choice(SUBJECT_NAMES, count, replace=False)), rng.choice(SCENE_NAMES), rng)


def make_group(subjects: tuple[str, ...], scene: str, rng: np.random.Generator) -> Group:
    """Draw one or two `subjects` (two different ones: from left to right) on a `scene`; all else comes from `rng`."""
    while True:
        placed = _place(subjects, rng)
        covered = [each.alpha() for each in placed]
        visible = [covered[0] & ~covered[1], covered[1]] if len(placed) == 2 else covered
        if visible[0].sum() >= LEAST_VISIBLE * covered[0].sum():
            break
    picture = draw_scene(scene, rng)
    for each in placed:
        picture.paste(each.figure, (each.left, each.top), each.figure)
    things = tuple(_thing(each, mask) for each, mask in zip(placed, visible, strict=True))
    return Group(np.asarray(picture), things, str(scene))


def _place(subjects: tuple[str, ...], rng: np.random.Generator) -> list[_Placed]:
    """Figures with their places, the farther one first: it stands higher and may be hidden."""
    pair, overlapping = len(subjects) == 2, rng.random() < OVERLAPPING
    placed = []
    for i, subject in enumerate(subjects):
        size = str(rng.choice(list(ALONE)))
        pixels = round(SIZE * rng.uniform(*(BESIDE if pair else ALONE)[size]))
        low, high = 0.02, 0.98
        if pair and not overlapping:
            low, high = (0.02, 0.50) if i == 0 else (0.50, 0.98)
        elif pair:
            low, high = (0.02, 0.65) if i == 0 else (0.35, 0.98)
        left = round(rng.uniform(low * SIZE, max(low * SIZE, high * SIZE - pixels)))
        top = round(SIZE * rng.uniform(0.72, 0.97)) - pixels
        colour, mirrored = str(rng.choice(COLOUR_NAMES)), bool(rng.random() < 0.5)
        paint = tuple(int(c) for c in (np.asarray(PALETTE[colour]) + rng.normal(0, 7, 3)).clip(0, 255))
        figure = draw_subject(str(subject), paint, pixels, mirrored=mirrored)
        placed.append(_Placed(str(subject), colour, size, mirrored, figure, left, top))
    return sorted(placed, key=lambda each: each.top + each.figure.height)


def _thing(placed: _Placed, mask: np.ndarray) -> Thing:
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
    pixels = placed.figure.width
    side = SIDES[int(placed.left + pixels / 2 >= SIZE / 2)]
    points = {}
    for name in LANDMARKS[placed.subject]:
        x, y = landmark(placed.subject, name, pixels, placed.mirrored)
        x, y = x + placed.left, y + placed.top
        if 0 <= x < SIZE and 0 <= y < SIZE and mask[int(y), int(x)]:
            points[name] = (x, y)
    return Thing(placed.subject, placed.colour, placed.size, side, placed.mirrored, mask, box, points)


def first_world_group(seed: int) -> Group:
    """The first world's picture of this seed; its subject is large and faces right."""
    picture = random_picture(seed)
    placed = _Placed(picture.kind.subject, picture.kind.colour, "large", False, *picture.figure)
    return Group(picture.image, (_thing(placed, picture.mask),), picture.kind.scene)


def describe(things: Sequence[Named], scene: str, rng: np.random.Generator) -> str:
    """A caption in a random form; colour, size and side of each thing are sometimes left out.

    Two things are named in either order, so that their order says nothing about their places.
    """
    if len(things) == 1 and rng.random() < 0.5:
        return caption(Kind(things[0].subject, scene, things[0].colour), rng)
    phrases = []
    for i in rng.permutation(len(things)):
        thing = things[i]
        sided, coloured, sized = (rng.random(3) < (SIDE_NAMED, COLOUR_NAMED, SIZE_NAMED)).tolist()
        words = " ".join([*[thing.size] * sized, *[thing.colour] * coloured, thing.subject])
        place = f" on the {thing.side}" if sided else ""
        phrases.append(f"{'an' if words[0] in 'aeiou' else 'a'} {words}{place}")
    place = rng.choice(PLACES.get(scene, (scene,)))
    return PATTERNS[rng.integers(len(PATTERNS))].format(things=" and ".join(phrases), scene=place)
