"""Tuned masks against the nodes' own functions, one after another."""

import pytest
import torch

from explainable_latents.nodes.core.maps.filters import dilate, erode, gaussian_smooth
from explainable_latents.nodes.core.maps.masks import Shaping, saliency_masks, shape_mask
from explainable_latents.nodes.core.maps.saliency import Saliency
from explainable_latents.nodes.core.maps.tuning import Tuning, tuned_masks

from .random_maps import random_maps

LABELS = tuple(f"{word}, step {step}" for step in (3, 7) for word in ("dog#1", "dog#2", "beach"))


@pytest.fixture
def given():
    return Saliency(random_maps(6, 2, 11, 9), LABELS, 1.0, None, (11, 9))


def test_filters_act_in_their_order_and_then_words_are_chosen(given):
    filters = (("smooth", 2.0, 5), ("dilate", 3, 1), ("erode", 5, 2))
    found = tuned_masks(given, Tuning(Shaping("otsu", combine="intersection"), filters, words="dog"))
    maps = erode(dilate(gaussian_smooth(given.maps, 2.0, 5), 3, 1), 5, 2)
    assert torch.equal(found, shape_mask(maps[[0, 1, 3, 4]], Shaping("otsu", combine="intersection"), LABELS[:4]))


def test_one_step_or_one_map(given):
    shaping = Shaping("mean + k·std", 0.3, "union", smooth_sigma=1.0, dilate_iterations=1)
    expected = shape_mask(given.maps[3:], shaping, LABELS[3:])
    assert torch.equal(tuned_masks(given, Tuning(shaping, frame="step 7")), expected)
    one = shape_mask(given.maps[4:5], shaping, LABELS[4:5])
    assert torch.equal(tuned_masks(given, Tuning(shaping, words="nobody", number=4)), one)
    assert torch.equal(tuned_masks(given, Tuning(shaping, words="dog#2", frame="step 7")), one)


@pytest.mark.parametrize("refine", [None, 0, 1, 2])
def test_maps_that_are_refined_less(refine):
    maps = [random_maps(6, 2, 11, 9) ** (power + 1) for power in range(3)]
    given = Saliency(maps[-1], LABELS, 1.0, None, (11, 9), 8, 2, tuple(maps[:-1]))
    tuning = Tuning(Shaping("otsu", combine="sum"), (("smooth", 2.0, 5),), words="dog#1", refine=refine)
    chosen = gaussian_smooth(maps[2 if refine is None else refine], 2.0, 5)[[0, 3]]
    assert torch.equal(tuned_masks(given, tuning), shape_mask(chosen, tuning.shaping, (LABELS[0], LABELS[3])))


@pytest.mark.parametrize("channels", ["together", "each", "whole"])
def test_latent_channels(channels):
    given = Saliency(random_maps(2, 3, 4, 11, 9), ("dog", "beach"), 1.0, None, (11, 9))
    tuning = Tuning(Shaping("otsu", combine="union"), (("smooth", 2.0, 5), ("dilate", 3, 2)), channels=channels)
    filtered = given.with_maps(dilate(gaussian_smooth(given.maps, 2.0, 5), 3, 2))
    assert torch.equal(tuned_masks(given, tuning), saliency_masks(filtered, tuning.shaping, channels))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"filters": (("blur", 1.0, 3),)}, "filter 'blur' is not one of: smooth, dilate, erode"),
        ({"channels": "some"}, "channels 'some' is not one of"),
        ({"number": 6}, "no map number 6: there are 6, counted from 0"),
        ({"frame": "step 5"}, "no map of step 5; there are: step 3, step 7"),
        ({"words": "cat"}, "no map of 'cat'"),
        ({"refine": 1}, "no maps with refine 1, only with 0: set refine on the node that captures, and run"),
        ({"filters": (("smooth", 1.0, 4),)}, "smoothing size 4 must be an odd number"),
    ],
)
def test_mistakes_are_named(given, how, words):
    with pytest.raises(ValueError, match=words):
        tuned_masks(given, Tuning(Shaping(), **how))
