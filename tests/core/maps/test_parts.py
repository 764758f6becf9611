"""Connected parts of masks against a flood fill written here, and scikit-image."""

import numpy as np
import pytest
import torch
from skimage.measure import label
from skimage.morphology import reconstruction

from explainable_latents.nodes.core.maps.masks import Shaping, mask_per_map, shape_mask
from explainable_latents.nodes.core.maps.parts import fill_holes, largest_parts, parts_at

from .random_maps import random_maps

DRAWN = [
    "##...#..",
    "##...#..",
    "....#...",
    "###.....",
    "#.#...##",
    "###...##",
]  # fmt: skip


def drawn(*lines: str) -> torch.Tensor:
    return torch.tensor([[letter == "#" for letter in line] for line in lines])[None]


def parts_of(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """The parts as sets of places, by flood fill over sides and corners, in the order of their first places."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(mask)}, []
    for start in sorted(left):
        if start not in left:
            continue
        part, border = set(), [start]
        while border:
            y, x = border.pop()
            if (y, x) in left:
                left.remove((y, x))
                part.add((y, x))
                border += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        found.append(part)
    return found


def as_mask(parts, shape) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    for part in parts:
        for place in part:
            mask[place] = True
    return mask


def some_masks(seed: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random((2, 3, 11, 14)) < 0.35)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("count", [1, 2, 5, 200])
def test_the_largest_parts_are_those_of_a_flood_fill(seed, count):
    masks = some_masks(seed)
    found = largest_parts(masks, count)
    for mask, kept in zip(masks.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        parts = sorted(parts_of(mask), key=len, reverse=True)[:count]  # sorting keeps the order of equal ones
        assert np.array_equal(kept, as_mask(parts, mask.shape))


@pytest.mark.parametrize("seed", range(5))
def test_parts_at_points_are_those_of_a_flood_fill(seed):
    masks = some_masks(seed)
    points = torch.rand((4, 2), generator=torch.Generator().manual_seed(seed)) * torch.tensor([14.0, 11.0])
    found = parts_at(masks, points)
    places = {(int(y), int(x)) for x, y in points.tolist()}
    for mask, kept in zip(masks.flatten(0, 1).numpy(), found.flatten(0, 1).numpy(), strict=True):
        assert np.array_equal(kept, as_mask([part for part in parts_of(mask) if part & places], mask.shape))


@pytest.mark.parametrize("seed", range(5))
def test_holes_are_what_scikit_image_cannot_reach_from_the_edge(seed):
    masks = some_masks(seed) | some_masks(seed + 100)
    for mask, filled in zip(masks.flatten(0, 1).numpy(), fill_holes(masks).flatten(0, 1).numpy(), strict=True):
        outside = np.pad(~mask, 1, constant_values=True)
        reached = label(outside, connectivity=1) == label(outside, connectivity=1)[0, 0]
        assert np.array_equal(filled, ~reached[1:-1, 1:-1])
        seeds = mask.astype(float)
        seeds[1:-1, 1:-1] = 1.0
        four = np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]])
        assert np.array_equal(filled, reconstruction(seeds, mask, method="erosion", footprint=four) > 0)


def test_parts_of_a_drawing():
    mask = drawn(*DRAWN)
    ring = drawn("........", "........", "........", "###.....", "#.#.....", "###.....")
    square = drawn("##......", "##......", "........", "........", "........", "........")
    assert torch.equal(largest_parts(mask, 1), ring)
    # of the two squares of four places the upper one comes first
    assert torch.equal(largest_parts(mask, 2), ring | square)
    # the diagonal is one part of three places, and (5.0, 2.9) lies beside it
    assert parts_at(mask, torch.tensor([[4.5, 2.5]])).sum() == 3
    assert not parts_at(mask, torch.tensor([[5.0, 2.9]])).any()
    # a point on the far edge lies in the last place
    assert parts_at(mask, torch.tensor([[8.0, 6.0]])).sum() == 4
    assert fill_holes(mask).sum() == mask.sum() + 1


SQUARES = torch.zeros(1, 1, 6, 8)
SQUARES[..., :2, :2], SQUARES[..., 3:6, 3:6], SQUARES[..., 4, 4], SQUARES[..., 0, 7] = 4.0, 3.0, 0.0, 5.0


@pytest.mark.parametrize(
    ("how", "places"),
    [
        ({}, 4 + 8 + 1),
        ({"parts": "largest"}, 8),
        ({"parts": "largest", "fill_holes": True}, 9),
        ({"parts": "largest", "part_count": 2}, 12),
        # in picture pixels, 8 for each latent pixel
        ({"parts": "touching points", "points": "[[60, 4]]"}, 1),
        ({"parts": "touching points", "points": "[[60, 4], [1, 15.9], [30, 3]]"}, 5),
        ({"parts": "touching points", "points": '[{"x": 30, "y": 30}]', "fill_holes": True}, 9),
        ({"fill_holes": True}, 4 + 9 + 1),
    ],
)
def test_a_mask_keeps_the_parts_that_are_asked_for(how, places):
    shaping = Shaping("of maximum", 0.5, **how)
    mask = shape_mask(SQUARES, shaping, ("dog",))
    assert mask.sum() == places
    assert torch.equal(mask_per_map(SQUARES.expand(2, -1, -1, -1), shaping, ("dog", "cat"))[1], mask)
    inverted = shape_mask(SQUARES, Shaping("of maximum", 0.5, invert=True, **how), ("dog",))
    assert torch.equal(inverted, 1 - mask)


def test_parts_are_chosen_before_the_mask_grows():
    how = {"dilate_size": 3, "dilate_iterations": 1, "smooth_and_dilate": "after the threshold"}
    grown = shape_mask(SQUARES, Shaping("of maximum", 0.5, parts="largest", **how), ("dog",))
    # a square of 3 x 3 with a hole grows to 4 x 5, cut by the lower edge
    assert grown.sum() == 20


def test_each_latent_and_channel_has_its_own_parts():
    maps = torch.stack([SQUARES[0, 0], SQUARES[0, 0].flip(-1)])[None, None]
    mask = shape_mask(maps, Shaping("of maximum", 0.5, "union", parts="largest"), ("dog",))
    assert mask.shape == (1, 2, 6, 8)
    assert mask.sum((-2, -1)).tolist() == [[8.0, 8.0]]
    assert torch.equal(mask[0, 1], mask[0, 0].flip(-1))


def test_a_channel_without_a_part_at_the_points_is_named():
    maps = torch.stack([SQUARES[0, 0], SQUARES[0, 0].flip(-1)])[None, None].expand(1, 2, 2, 6, 8)
    how = Shaping("of maximum", 0.5, parts="touching points", points="[[44, 28]]")
    with pytest.raises(ValueError, match=r"no part of mask 1 \(channel 2\), 2 \(channel 2\) of 2 is at the points"):
        shape_mask(maps, how, ("dog",))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"parts": "biggest"}, "parts 'biggest' is not one of: all, largest, touching points"),
        ({"parts": "largest", "part_count": 0}, "0 largest parts: keep at least 1"),
        ({"parts": "touching points"}, "the points '' are not a list"),
        ({"parts": "touching points", "points": "[[64.1, 4]]"}, "outside of the picture of 64x48"),
        ({"parts": "touching points", "points": "[[30, 4]]"}, r"no part of mask 1 of 1 is at the points \[\[30, 4\]\]"),
    ],
)
def test_mistakes_say_what_is_wrong(how, words):
    with pytest.raises(ValueError, match=words):
        shape_mask(SQUARES, Shaping("of maximum", 0.5, **how), ("dog",))


def test_without_a_choice_of_parts_a_mask_keeps_its_bits():
    maps = random_maps(2, 3, 9, 7)
    assert torch.equal(shape_mask(maps, Shaping(parts="all"), ("a", "b")), shape_mask(maps, Shaping(), ("a", "b")))
