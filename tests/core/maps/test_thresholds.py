"""Thresholds against scikit-image and numbers worked out by hand, and their properties on random maps."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.filters import threshold_otsu

from explainable_latents.nodes.core.maps.thresholds import RULES, above_threshold, mean_threshold, otsu_threshold

from .random_maps import ANY_MAPS, is_flat, labels_of, random_maps


@given(ANY_MAPS, st.sampled_from(sorted(set(RULES) - {"log-mean"})), st.sampled_from([0.25, 2.0, 1024.0]))
def test_a_scaled_map_has_the_same_mask(maps, rule, factor):
    if is_flat(maps):
        return
    # Powers of two scale a float without rounding, so the masks are equal bit for bit.
    assert torch.equal(
        above_threshold(maps, rule, 0.5, labels_of(maps)), above_threshold(maps * factor, rule, 0.5, labels_of(maps))
    )


@given(ANY_MAPS, st.floats(0.01, 100))
def test_the_level_of_log_mean_scales_with_the_map(maps, factor):
    # its logarithms round, so the levels are compared and not the masks
    maps = maps + 0.001
    scaled = RULES["log-mean"](maps * factor, 0.2)
    torch.testing.assert_close(scaled, RULES["log-mean"](maps, 0.2) * factor, rtol=1e-4, atol=0)


def test_threshold_rules_on_numbers_worked_out_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert RULES["mean"](maps, 0).item() == 3.75
    # the mean of log 1, log 2, log 4, log 8 is 1.5 log 2
    assert RULES["log-mean"](maps, 0.2).item() == pytest.approx(2**1.5 * np.exp(0.2), rel=1e-6)
    # variance: (2.75² + 1.75² + 0.25² + 4.25²) / 4 = 7.1875
    assert RULES["mean + k·std"](maps, 0.5).item() == pytest.approx(3.75 + 0.5 * 7.1875**0.5, rel=1e-6)
    assert RULES["quantile"](maps, 0.5).item() == 3.0
    assert RULES["of maximum"](maps, 0.25).item() == 2.0
    assert RULES["min-max"](maps, 0.5).item() == 4.5  # 1 + (8 - 1) / 2
    assert RULES["mean × factor"](maps, 2.0).item() == 7.5
    assert above_threshold(maps, "mean", 0, ("dog",)).tolist() == [[[[False, False], [True, True]]]]


def test_log_mean_leaves_zeros_out():
    with_zero = torch.tensor([[[[0.0, 1.0], [4.0, 16.0]]]])
    assert RULES["log-mean"](with_zero, 0.0).item() == pytest.approx(4.0, rel=1e-6)


def test_the_shares_of_each_map_of_several_are_its_own():
    maps = random_maps(2, 3, 4, 8, 6)
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    masks = {rule: above_threshold(maps, rule, 0.25, ("a", "b")) for rule in ("of maximum", "min-max", "mean × factor")}
    assert torch.equal(masks["of maximum"], maps / high > 0.25)
    assert torch.equal(masks["min-max"], (maps - low) / (high - low) > 0.25)
    assert torch.equal(masks["mean × factor"], maps / maps.mean((-2, -1), keepdim=True) > 0.25)


@pytest.mark.parametrize("rule", ["of maximum", "min-max"])
def test_the_ends_of_a_share_take_all_but_the_least_and_nothing(rule):
    maps = random_maps(1, 2, 8, 6)
    assert not above_threshold(maps, rule, 1.0, ("a",)).any()
    lowest = maps.amin((-2, -1), keepdim=True) if rule == "min-max" else 0.0
    assert torch.equal(above_threshold(maps, rule, 0.0, ("a",)), maps > lowest)


@pytest.mark.parametrize("seed", range(10))
def test_otsu_divides_like_scikit_image(seed):
    generator = np.random.default_rng(seed)
    # eight-bit values: scikit-image works on a histogram, which is exact for them
    values = np.concatenate([generator.normal(80, 12, 300), generator.normal(170, 20, 211)]).clip(0, 255).round()
    image = generator.permutation(values)[: 21 * 24].reshape(21, 24)
    level = threshold_otsu(image.astype(np.uint8))
    mine = otsu_threshold(torch.from_numpy(image).float()[None, None], 0.0)
    assert np.array_equal(image > level, image > mine.item())


def test_otsu_of_a_latents_channels_is_taken_one_by_one():
    maps = random_maps(1, 2, 4, 8, 8)
    whole = otsu_threshold(maps, 0.0)
    assert whole.shape == (1, 2, 4, 1, 1)
    assert whole[0, 1, 2].item() == otsu_threshold(maps[:, 1:2, 2:3], 0.0).item()


@pytest.mark.parametrize("rule", RULES)
def test_one_level_for_all_channels_is_that_of_their_values_in_a_row(rule):
    maps = random_maps(2, 3, 4, 8, 6)
    row = maps.reshape(2, 3, 1, -1)
    found = above_threshold(maps, rule, 0.5, ("a", "b"), across_channels=True)
    assert torch.equal(found.reshape(row.shape), above_threshold(row, rule, 0.5, ("a", "b")))
    assert torch.equal(
        above_threshold(row, rule, 0.5, ("a", "b"), across_channels=True), above_threshold(row, rule, 0.5, ("a", "b"))
    )


def test_a_flat_channel_is_no_mistake_when_all_have_one_level():
    maps = torch.stack([torch.ones(1, 4, 4), random_maps(1, 4, 4)], dim=1)[None]
    with pytest.raises(ValueError, match="'dog' has the same value everywhere"):
        above_threshold(maps, "mean", 0, ("dog",))
    assert above_threshold(maps, "mean", 0, ("dog",), across_channels=True)[0, 0, 0].all()


def test_half_precision_maps_keep_their_dtype():
    assert mean_threshold(random_maps(1, 1, 8, 8).to(torch.bfloat16), 0).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: above_threshold(random_maps(1, 1, 4, 4), "quantile", 1.5, ("dog",)), "quantile 1.5 must lie between"),
        (
            lambda: above_threshold(random_maps(1, 1, 4, 4), "of maximum", 1.5, ("dog",)),
            "of maximum 1.5 must lie between",
        ),
        (lambda: above_threshold(random_maps(1, 1, 4, 4), "min-max", -0.1, ("dog",)), "min-max -0.1 must lie between"),
        (
            lambda: above_threshold(random_maps(1, 1, 4, 4), "mean × factor", -1, ("dog",)),
            "mean × factor -1 is negative",
        ),
        (
            lambda: above_threshold(random_maps(1, 1, 4, 4), "triangle", 0, ("dog",)),
            "rule 'triangle' is not one of: mean",
        ),
    ],
)
def test_mistakes_state_the_value_and_what_is_allowed(call, words):
    with pytest.raises(ValueError, match=words):
        call()
