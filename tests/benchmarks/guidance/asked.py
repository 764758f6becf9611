"""Prompts with two subjects and a box for each, and how much of what they ask for a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.metrics import structural_similarity

from ...tools.toy_world.group_judge import Seen
from ...tools.toy_world.quality_groups import Prompt, pair_prompts

FIRST_SEED, BATCH = 2_040_000, 7
PROMPTS = 84
# Left, top, right and bottom as shares of the picture: where the world's pairs stand, in whole cells of the 8x8 layers.
LEFT, RIGHT = (0.0, 0.375, 0.5, 1.0), (0.5, 0.375, 1.0, 1.0)
Corners = tuple[float, float, float, float]


@dataclass(frozen=True)
class Asked:
    """A prompt, the seed of its noise, and for each of its subjects the box it belongs into."""

    prompt: Prompt
    seed: int
    boxes: dict[str, Corners]


@dataclass(frozen=True)
class Outcome:
    """What one picture shows.

    there: of each subject, whether it is seen. coloured: of each that is seen and has a colour in the prompt, whether
    it has it. in_half, iou: of each that is seen, whether its centroid is in its box's half of the picture, and the
    intersection over union of the box around it with its box. ssim: with the plain picture, outside of all boxes.
    time: of the batch's run beside the plain one's.
    """

    there: tuple[bool, ...]
    coloured: tuple[bool, ...]
    in_half: tuple[bool, ...]
    iou: tuple[float, ...]
    ssim: float
    time: float


def all_asked(seeds: int = 1) -> list[Asked]:
    """84 prompts: every two subjects in either order, without colours and with; half of them begin on the right.

    The pairs come in a random order, so that the first few prompts are about all subjects. After them the same prompts
    with further seeds: number i is about prompt i % PROMPTS.
    """
    together = list(zip(pair_prompts(False), pair_prompts(True), strict=True))
    order = np.random.default_rng(63).permutation(len(together))
    pairs = [prompt for i in order for prompt in together[i]]
    sides = (LEFT, RIGHT), (RIGHT, LEFT)
    # two neighbours are about the same subjects: the side changes after both, so that it goes with neither
    return [
        Asked(prompt, FIRST_SEED + turn * PROMPTS + i, dict(zip(prompt.things, sides[i // 2 % 2], strict=True)))
        for turn in range(seeds)
        for i, prompt in enumerate(pairs)
    ]


def batches(asked: Sequence[Asked], prompts: int = PROMPTS) -> list[tuple[int, ...]]:
    """The numbers of what can be drawn together: their subjects are the same words, on the same sides.

    Of each seed the first `prompts`. A batch is guided as if its pictures were alone, by the words' numbers in the
    prompt and their boxes.
    """
    alike: dict[tuple, list[int]] = {}
    for i, each in enumerate(asked):
        if i % PROMPTS < prompts:
            kind = i // PROMPTS, all(each.prompt.things.values()), *each.boxes.values()
            alike.setdefault(kind, []).append(i)
    parts = [tuple(own[at : at + BATCH]) for own in alike.values() for at in range(0, len(own), BATCH)]
    return sorted(parts)  # by their first prompts: all kinds are begun early


def outcome(asked: Asked, seen: Seen, picture: NDArray, plain: NDArray, time: float) -> Outcome:
    """Measure a picture, uint8 [H,W,3] as the plain one, by what the judge sees in it."""
    things = [name for name in asked.prompt.things if name in seen.subjects]
    masks = {name: largest_part(seen.subjects[name][1].numpy()) for name in things}
    placed = [name for name in things if masks[name].any()]
    return Outcome(
        tuple(name in things for name in asked.prompt.things),
        tuple(seen.subjects[name][0] == asked.prompt.things[name] for name in things if asked.prompt.things[name]),
        tuple(in_its_half(masks[name], asked.boxes[name]) for name in placed),
        tuple(box_iou(box_around(masks[name]), asked.boxes[name]) for name in placed),
        similarity_outside(plain, picture, list(asked.boxes.values())),
        time,
    )


def largest_part(mask: NDArray) -> NDArray:
    """The largest connected part of a bool mask, so that a stray pixel does not count."""
    labels, count = ndimage.label(mask)
    return labels == 1 + np.argmax(np.bincount(labels.flat)[1:]) if count else mask


def in_its_half(mask: NDArray, box: Corners) -> bool:
    """Whether a mask's centroid is on the same side of the picture's middle as the box's."""
    across = np.flatnonzero(mask) % mask.shape[1] + 0.5
    return bool((across.mean() < mask.shape[1] / 2) == (box[0] + box[2] < 1))


def box_around(mask: NDArray) -> Corners:
    """The smallest box that holds a mask, in shares of the picture."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    return columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height


def box_iou(a: Corners, b: Corners) -> float:
    """Intersection over union of two boxes."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, width) * max(0.0, height)
    return float(both / (sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)) - both))


def similarity_outside(plain: NDArray, picture: NDArray, boxes: list[Corners]) -> float:
    """SSIM of two pictures outside of all boxes."""
    _, values = structural_similarity(plain, picture, channel_axis=-1, data_range=255, full=True)
    height, width = plain.shape[:2]
    outside = np.ones((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        outside[round(y0 * height) : round(y1 * height), round(x0 * width) : round(x1 * width)] = False
    return float(values[outside].mean())
