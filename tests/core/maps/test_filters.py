"""Filters against scipy, and on what crosses nodes: saliency and MASK."""

import numpy as np
import pytest
import torch
from hypothesis import given
from scipy import ndimage

from explainable_latents.nodes.core.maps.filters import apply_filter, dilate, erode, gaussian_smooth
from explainable_latents.nodes.core.maps.saliency import Saliency

from .random_maps import ANY_MAPS, random_maps

GRIDS = [(16, 16), (9, 14), (1, 5), (64, 96), (65, 67)]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("sigma", "size"), [(6.0, 3), (1.0, 5), (0.5, 7), (3.0, 1)])
def test_smoothing_is_scipys_with_the_same_window_and_edges(grid, sigma, size):
    maps = random_maps(2, 1, *grid)
    expected = [ndimage.gaussian_filter(m, sigma, mode="nearest", radius=size // 2) for m in maps[:, 0].numpy()]
    # float32 sums of at most 7 x 7 numbers below 1
    np.testing.assert_allclose(gaussian_smooth(maps, sigma, size)[:, 0].numpy(), expected, atol=1e-6)


@pytest.mark.parametrize(("mine", "scipys"), [(dilate, ndimage.grey_dilation), (erode, ndimage.grey_erosion)])
@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize(("size", "iterations"), [(3, 1), (3, 3), (5, 2), (1, 4), (31, 3)])
def test_dilation_and_erosion_are_scipys_repeated(mine, scipys, grid, size, iterations):
    maps = random_maps(2, 1, *grid)
    expected = maps[:, 0].numpy()
    for _ in range(iterations):
        expected = np.stack([scipys(m, size=(size, size), mode="nearest") for m in expected])
    np.testing.assert_array_equal(mine(maps, size, iterations)[:, 0].numpy(), expected)


@pytest.mark.parametrize("seed", range(4))
def test_on_a_mask_they_are_scipys_binary_ones(seed):
    mask = random_maps(33, 21, seed=seed) > 0.7
    square = np.ones((3, 3))
    # beyond the edge nothing grows in and nothing is eaten away
    grown = ndimage.binary_dilation(mask.numpy(), square, iterations=2)
    shrunk = ndimage.binary_erosion(mask.numpy(), square, border_value=1)
    np.testing.assert_array_equal(dilate(mask.float(), 3, 2).numpy(), grown)
    np.testing.assert_array_equal(erode(mask.float(), 3, 1).numpy(), shrunk)


def test_zero_smoothing_and_dilation_change_nothing():
    maps = random_maps(1, 1, 8, 8)
    assert gaussian_smooth(maps, 0.0, 3) is maps
    assert dilate(maps, 3, 0) is maps
    assert torch.equal(erode(maps, 3, 0), maps)


@given(ANY_MAPS)
def test_dilation_only_grows_and_erosion_only_shrinks(maps):
    assert (dilate(maps, 3, 2) >= maps).all()
    assert (erode(maps, 3, 2) <= maps).all()
    assert (erode(dilate(maps, 3, 1), 3, 1) >= maps).all()  # closing
    assert (dilate(erode(maps, 3, 1), 3, 1) <= maps).all()  # opening


def test_half_precision_maps_keep_their_dtype():
    maps = random_maps(1, 1, 8, 8).to(torch.bfloat16)
    assert gaussian_smooth(dilate(maps, 3, 1), 1.0, 3).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian_smooth(torch.ones(1, 4, 4), -1.0, 3), "sigma -1.0 is negative"),
        (lambda: gaussian_smooth(torch.ones(1, 4, 4), 1.0, 4), "size 4 must be an odd number"),
        (lambda: dilate(torch.ones(1, 4, 4), 0, 1), "size 0 must be an odd number"),
        (lambda: dilate(torch.ones(1, 4, 4), 3, -1), "iterations -1 is negative"),
        (lambda: erode(torch.ones(1, 4, 4), 2, 1), "size 2 must be an odd number"),
    ],
)
def test_mistakes_state_the_value_and_what_is_allowed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def smooth(maps: torch.Tensor) -> torch.Tensor:
    return gaussian_smooth(maps, 2.0, 5)


def test_saliency_keeps_everything_but_its_maps():
    given = Saliency(random_maps(2, 3, 9, 7), ("dog", "cat"), 3.0, 7, (9, 7))
    made = apply_filter(given, smooth)
    assert torch.equal(made.maps, smooth(given.maps))
    assert (made.labels, made.sigma, made.step, made.grid) == (given.labels, 3.0, 7, (9, 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(2, 65, 33), (33, 65)])
def test_a_mask_keeps_shape_and_float_type(dtype, shape):
    mask = random_maps(*shape).to(dtype)
    made = apply_filter(mask, smooth)
    assert (made.dtype, made.shape) == (dtype, mask.shape)
    assert torch.equal(made, smooth(mask.float()).to(dtype))


def test_whole_numbers_become_numbers_with_fractions():
    made = apply_filter(torch.eye(8, dtype=torch.uint8)[None], smooth)
    assert made.dtype == torch.float32
    assert 0 < made[0, 0, 1] < 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (random_maps(1, 8, 8, 3), r"got Tensor of shape \[1, 8, 8, 3\]; a picture becomes a MASK"),
        ({"samples": random_maps(1, 4, 8, 8)}, "needs saliency or a MASK .*, and got dict;"),
    ],
)
def test_something_else_is_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        apply_filter(bad, smooth)
