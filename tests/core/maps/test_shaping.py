"""Filters and thresholds on saliency and MASK, as the mask nodes apply them."""

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping, dilate, gaussian_smooth, shape_mask
from explainable_latents.nodes.core.maps.saliency import Saliency
from explainable_latents.nodes.core.maps.shaping import filtered, saliency_masks


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def saliency(*shape: int) -> Saliency:
    maps = random(*shape)
    return Saliency(maps, tuple(f"word {i}" for i in range(shape[0])), 3.0, 7, tuple(shape[-2:]))


def smooth(maps: torch.Tensor) -> torch.Tensor:
    return gaussian_smooth(maps, 2.0, 5)


def test_saliency_keeps_everything_but_its_maps():
    given = saliency(2, 3, 9, 7)
    made = filtered(given, smooth)
    assert torch.equal(made.maps, smooth(given.maps))
    assert (made.labels, made.sigma, made.step, made.grid) == (given.labels, 3.0, 7, (9, 7))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(2, 65, 33), (33, 65)])
def test_a_mask_keeps_shape_and_float_type(dtype, shape):
    mask = random(*shape).to(dtype)
    made = filtered(mask, smooth)
    assert (made.dtype, made.shape) == (dtype, mask.shape)
    assert torch.equal(made, smooth(mask.float()).to(dtype))


def test_whole_numbers_become_numbers_with_fractions():
    made = filtered(torch.eye(8, dtype=torch.uint8)[None], smooth)
    assert made.dtype == torch.float32
    assert 0 < made[0, 0, 1] < 1


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (random(1, 8, 8, 3), r"got Tensor of shape \[1, 8, 8, 3\]; a picture becomes a MASK"),
        ({"samples": random(1, 4, 8, 8)}, "needs saliency or a MASK .*, and got dict;"),
    ],
)
def test_something_else_is_refused(bad, words):
    with pytest.raises(ValueError, match=words):
        filtered(bad, smooth)


def test_masks_of_each_word_come_word_by_word():
    given = saliency(2, 3, 9, 7)
    each = saliency_masks(given, "mean", 0.0, "each", False, "together")
    assert each.shape == (6, 9, 7)
    for word in range(2):
        for latent in range(3):
            alone = given.maps[word : word + 1, latent : latent + 1]
            assert torch.equal(each[3 * word + latent], shape_mask(alone, Shaping(), ("word",))[0])
    assert torch.equal(saliency_masks(given, "mean", 0.0, "each", True, "together"), 1 - each)
    union = saliency_masks(given, "mean", 0.0, "union", False, "together")
    assert torch.equal(union, each.view(2, 3, 9, 7).amax(0))


def test_channels_become_one_mask():
    given = saliency(2, 3, 4, 9, 7)
    together = saliency_masks(given, "otsu", 0.0, "intersection", False, "together")
    assert torch.equal(together, shape_mask(given.maps.mean(2), Shaping("otsu", combine="intersection"), given.labels))
    for channels, whole in (("each", False), ("whole", True)):
        share = saliency_masks(given, "mean", 0.0, "union", False, channels)
        assert torch.equal(share, shape_mask(given.maps, Shaping(combine="union", whole=whole), given.labels).mean(1))
        assert set(share.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert saliency_masks(given, "mean", 0.0, "each", False, channels).shape == (6, 9, 7)


def test_filters_before_the_threshold_are_those_of_the_samplers():
    given = saliency(1, 2, 16, 16)
    by_nodes = filtered(filtered(given, smooth), lambda maps: dilate(maps, 3, 2))
    by_sampler = Shaping("mean", sigma=2.0, size=5, dilation=3, iterations=2)
    expected = shape_mask(given.maps, by_sampler, given.labels)
    assert torch.equal(saliency_masks(by_nodes, "mean", 0.0, "sum", False, "together"), expected)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (("median", 0.0, "union", False, "together"), "'median' is not one of"),
        (("mean", 0.0, "xor", False, "together"), "'xor' is not one of"),
        (("mean", 0.0, "each", False, "some"), "'some' is not one of: together, each, whole"),
        (("quantile", 7.0, "each", False, "together"), "quantile 7.0"),
    ],
)
def test_an_unknown_choice_is_named(choice, words):
    with pytest.raises(ValueError, match=words):
        saliency_masks(saliency(1, 1, 4, 4), *choice)


def test_a_map_without_information_is_named():
    flat = Saliency(torch.ones(1, 1, 4, 4), ("dog",), 1.0, None, (4, 4))
    for combine in ("union", "each", "sum"):
        with pytest.raises(ValueError, match="'dog' has the same value everywhere"):
            saliency_masks(flat, "mean", 0.0, combine, False, "together")
