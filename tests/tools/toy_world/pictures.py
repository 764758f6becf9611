"""Seeded pictures of one subject on one scene, with the exact subject mask and a caption."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

from .scenes import SCENES, SIZE, draw_scene
from .subjects import PALETTE, SUBJECTS, draw_subject

SUBJECT_NAMES = tuple(SUBJECTS)
SCENE_NAMES = tuple(SCENES)
COLOUR_NAMES = tuple(PALETTE)

TEMPLATES = (
    "{subject} on {scene}",
    "a {subject} on {scene}",
    "a {subject} on the {scene}",
    "the {subject} on a {scene}",
    "a {subject} in the {scene}",
    "{subject} in {scene}",
    "{subject} at the {scene}",
    "a photo of a {subject} on the {scene}",
    "a picture of a {subject} on {scene}",
    "photo of {subject} in the {scene}",
    "a drawing of a {subject} at the {scene}",
    "one {subject} near the {scene}",
)


@dataclass(frozen=True)
class Kind:
    """What a picture shows."""

    subject: str
    scene: str
    colour: str


@dataclass(frozen=True)
class Picture:
    """`image` uint8 [128,128,3], `mask` bool [128,128] (true on the subject and its outline), and what is shown.

    figure: the subject's own picture (RGBA) and the place (left, top) of its corner.
    """

    image: np.ndarray
    mask: np.ndarray
    kind: Kind
    figure: tuple[Image.Image, int, int]


def random_kind(seed: int) -> Kind:
    """Choose subject, scene and colour by `seed`, each with equal probability and independent of the others."""
    rng = np.random.default_rng([seed, 2024])
    return Kind(*(names[rng.integers(len(names))] for names in (SUBJECT_NAMES, SCENE_NAMES, COLOUR_NAMES)))


def make_picture(kind: Kind, seed: int) -> Picture:
    """Draw `kind`; the same arguments always give the same picture.

    Position, size (60 to 68 % of the side), the exact colours and the scene's layout come from `seed`.
    """
    key = [seed, SUBJECT_NAMES.index(kind.subject), SCENE_NAMES.index(kind.scene), COLOUR_NAMES.index(kind.colour)]
    rng = np.random.default_rng(key)
    paint = tuple(int(c) for c in (np.asarray(PALETTE[kind.colour]) + rng.normal(0, 7, 3)).clip(0, 255))
    pixels = round(SIZE * rng.uniform(0.60, 0.68))
    figure = draw_subject(kind.subject, paint, pixels)
    left = round(rng.uniform(0.02, 0.98) * (SIZE - pixels))
    top = round(SIZE * rng.uniform(0.80, 0.96)) - pixels
    picture = draw_scene(kind.scene, rng)
    picture.paste(figure, (left, top), figure)
    alpha = Image.new("L", (SIZE, SIZE))
    alpha.paste(figure.getchannel("A"), (left, top))
    return Picture(np.asarray(picture), np.asarray(alpha) > 127, kind, (figure, left, top))


def random_picture(seed: int) -> Picture:
    """Draw a picture of a kind chosen by `seed`."""
    return make_picture(random_kind(seed), seed)


def caption(kind: Kind, rng: np.random.Generator) -> str:
    """Describe `kind` with a random template; three captions in ten name the colour."""
    subject = f"{kind.colour} {kind.subject}" if rng.random() < 0.3 else kind.subject
    return TEMPLATES[rng.integers(len(TEMPLATES))].format(subject=subject, scene=kind.scene)
