"""Matching of places against the published loop over pixels, in float64; and what is taken at the places found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from explainable_latents.nodes.core.methods import eye_for_an_eye
from explainable_latents.nodes.core.methods.eye_for_an_eye import most_alike, same_places, taken


def features(grid: tuple[int, int], batch: int = 3, seed: int = 0, dtype=torch.float32) -> torch.Tensor:
    """[B,h·w,C], of different lengths: the longest are not the most alike."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(batch, grid[0] * grid[1], 7, generator=generator)
    return (drawn * torch.rand(*drawn.shape[:2], 1, generator=generator).add(0.1) * 5).to(dtype)


def halves(grid: tuple[int, int], batch: int = 3) -> torch.Tensor:
    """Another half of the places for each picture."""
    return torch.rand(batch, grid[0] * grid[1], generator=torch.Generator().manual_seed(sum(grid))) < 0.5


def loop(target, appearance, inside, other) -> np.ndarray:
    """Each pixel by itself, on its grid or not: the places are numbered row by row."""
    found = np.full(target.shape[:2], -1)
    target, appearance = (x.double().numpy() for x in (target, appearance))
    for picture in range(len(target)):
        for i in range(target.shape[1]):
            best = -2.0
            for j in range(appearance.shape[1]) if inside[picture, i] else ():
                a, b = target[picture, i], appearance[picture, j]
                cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
                if other[picture, j] and cosine > best:
                    best, found[picture, i] = cosine, j
    return found


@pytest.mark.parametrize("grids", [((4, 4), (4, 4)), ((5, 3), (5, 3)), ((3, 7), (2, 9)), ((1, 6), (1, 1))], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_places_are_those_of_a_loop_over_pixels(grids, dtype, monkeypatch):
    """All of them, with masks, and a few at a time."""
    target, appearance = (features(grid, seed=i, dtype=dtype) for i, grid in enumerate(grids))
    whole = [torch.ones(x.shape[:2], dtype=torch.bool) for x in (target, appearance)]
    masks = [halves(grid) for grid in grids]
    for given, used in (((None, None), whole), (masks, masks), ((masks[0], None), (masks[0], whole[1]))):
        expected = loop(target, appearance, *used)
        assert np.array_equal(most_alike(target, appearance, *given).numpy(), expected)
        with monkeypatch.context() as few:
            few.setattr(eye_for_an_eye, "AT_ONCE", 5)
            assert np.array_equal(most_alike(target, appearance, *given).numpy(), expected)


def test_what_is_taken_is_the_other_ones_at_these_places_and_the_own_elsewhere():
    own, theirs = features((3, 5)), features((2, 4), seed=1)
    places = most_alike(own, theirs, halves((3, 5)))
    found = taken(own, theirs, places)
    for picture in range(3):
        for i, place in enumerate(places[picture].tolist()):
            assert torch.equal(found[picture, i], own[picture, i] if place < 0 else theirs[picture, place])
    assert {-1} < set(places.flatten().tolist())


def test_the_same_picture_and_empty_masks_change_nothing_bit_for_bit():
    """An empty mask of one picture leaves the others as they are."""
    own, theirs = features((15, 9)), features((15, 9), seed=1)
    assert torch.equal(taken(own, own, most_alike(own, own)), own)
    for empty in range(2):
        masks = [torch.ones(3, 135, dtype=torch.bool), torch.ones(3, 135, dtype=torch.bool)]
        masks[empty][1] = False
        for places in (most_alike(own, theirs, *masks), same_places(own, *masks)):
            found = taken(own, theirs, places)
            assert torch.equal(found[1], own[1])
            assert not torch.equal(found[0], own[0])


def test_the_structure_is_taken_place_by_place_inside():
    own, theirs, inside = features((3, 5)), features((3, 5), seed=1), halves((3, 5))
    assert torch.equal(taken(own, theirs, same_places(own)), theirs)
    assert torch.equal(taken(own, theirs, same_places(own, inside)), torch.where(inside[..., None], theirs, own))


def test_features_that_overflow_in_half_precision_are_compared():
    """Their products are above what float16 holds."""
    own = (features((4, 4)) * 2000).half()
    assert torch.equal(most_alike(own, own), torch.arange(16).expand(3, -1))
