"""Masks against scipy and scikit-image, and their properties on random maps."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.filters import threshold_otsu

from explainable_latents.nodes.core.maps.masks import (
    RULES,
    Shaping,
    dilate,
    each_mask,
    enlarge,
    erode,
    gaussian_smooth,
    mean_threshold,
    otsu_threshold,
    shape_mask,
    threshold,
)

GRIDS = [(16, 16), (9, 14), (1, 5), (64, 96), (65, 67)]

maps_strategy = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 3), st.integers(1, 2), st.integers(2, 9), st.integers(2, 9)),
    elements=st.floats(0, 1, width=32, allow_subnormal=False).map(lambda v: round(v, 3)),
).map(torch.from_numpy)


def random_maps(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def labels_of(maps: torch.Tensor) -> tuple[str, ...]:
    return tuple(f"word {i}" for i in range(len(maps)))


def is_flat(maps: torch.Tensor) -> bool:
    return bool((maps.amax((-2, -1)) - maps.amin((-2, -1)) <= 1e-6 * maps.abs().amax((-2, -1))).any())


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


@given(maps_strategy)
def test_dilation_only_grows_and_erosion_only_shrinks(maps):
    assert (dilate(maps, 3, 2) >= maps).all()
    assert (erode(maps, 3, 2) <= maps).all()
    assert (erode(dilate(maps, 3, 1), 3, 1) >= maps).all()  # closing
    assert (dilate(erode(maps, 3, 1), 3, 1) <= maps).all()  # opening


@given(
    maps_strategy, st.sampled_from(["mean", "mean + k·std", "quantile", "otsu"]), st.sampled_from([0.25, 2.0, 1024.0])
)
def test_a_scaled_map_has_the_same_mask(maps, rule, factor):
    if is_flat(maps):
        return
    # Powers of two scale a float without rounding, so the masks are equal bit for bit.
    assert torch.equal(
        threshold(maps, rule, 0.5, labels_of(maps)), threshold(maps * factor, rule, 0.5, labels_of(maps))
    )


@given(maps_strategy, st.floats(0.01, 100))
def test_the_level_of_log_mean_scales_with_the_map(maps, factor):
    # its logarithms round, so the levels are compared and not the masks
    maps = maps + 0.001
    scaled = RULES["log-mean"](maps * factor, 0.2)
    torch.testing.assert_close(scaled, RULES["log-mean"](maps, 0.2) * factor, rtol=1e-4, atol=0)


@given(maps_strategy)
def test_union_covers_every_subject_and_intersection_lies_in_each(maps):
    if is_flat(maps):
        return
    union = shape_mask(maps, Shaping(combine="union"), labels_of(maps))
    intersection = shape_mask(maps, Shaping(combine="intersection"), labels_of(maps))
    each = each_mask(maps, Shaping(), labels_of(maps))
    for subject, label, mask in zip(maps, labels_of(maps), each, strict=True):
        alone = shape_mask(subject[None], Shaping(), (label,))
        assert torch.equal(mask, alone)
        assert (union >= alone).all()
        assert (intersection <= alone).all()


def test_threshold_rules_on_numbers_worked_out_by_hand():
    maps = torch.tensor([[[[1.0, 2.0], [4.0, 8.0]]]])
    assert RULES["mean"](maps, 0).item() == 3.75
    # the mean of log 1, log 2, log 4, log 8 is 1.5 log 2
    assert RULES["log-mean"](maps, 0.2).item() == pytest.approx(2**1.5 * np.exp(0.2), rel=1e-6)
    # variance: (2.75² + 1.75² + 0.25² + 4.25²) / 4 = 7.1875
    assert RULES["mean + k·std"](maps, 0.5).item() == pytest.approx(3.75 + 0.5 * 7.1875**0.5, rel=1e-6)
    assert RULES["quantile"](maps, 0.5).item() == 3.0
    assert threshold(maps, "mean", 0, ("dog",)).tolist() == [[[[False, False], [True, True]]]]


def test_log_mean_leaves_zeros_out():
    with_zero = torch.tensor([[[[0.0, 1.0], [4.0, 16.0]]]])
    assert RULES["log-mean"](with_zero, 0.0).item() == pytest.approx(4.0, rel=1e-6)


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


def test_one_level_for_all_channels_or_one_for_each():
    maps = torch.tensor([[[[[0.0, 1.0]], [[8.0, 11.0]]]]])  # two channels of 1 x 2
    assert threshold(maps, "mean", 0, ("dog",)).tolist() == [[[[[False, True]], [[False, True]]]]]
    assert threshold(maps, "mean", 0, ("dog",), whole=True).tolist() == [[[[[False, False]], [[True, True]]]]]
    # mean 5, variance (25 + 16 + 9 + 36) / 4 = 21.5: the level is 5 + 21.5 ** 0.5 = 9.64
    shaping = Shaping("mean + k·std", 1.0, whole=True)
    assert shape_mask(maps, shaping, ("dog",)).tolist() == [[[[0.0, 0.0]], [[0.0, 1.0]]]]


@pytest.mark.parametrize("rule", RULES)
def test_one_level_for_all_channels_is_that_of_their_values_in_a_row(rule):
    maps = random_maps(2, 3, 4, 8, 6)
    row = maps.reshape(2, 3, 1, -1)
    found = threshold(maps, rule, 0.5, ("a", "b"), whole=True)
    assert torch.equal(found.reshape(row.shape), threshold(row, rule, 0.5, ("a", "b")))
    assert torch.equal(threshold(row, rule, 0.5, ("a", "b"), whole=True), threshold(row, rule, 0.5, ("a", "b")))


def test_a_flat_channel_is_no_mistake_when_all_have_one_level():
    maps = torch.stack([torch.ones(1, 4, 4), random_maps(1, 4, 4)], dim=1)[None]
    with pytest.raises(ValueError, match="'dog' has the same value everywhere"):
        threshold(maps, "mean", 0, ("dog",))
    assert threshold(maps, "mean", 0, ("dog",), whole=True)[0, 0, 0].all()


def test_a_latent_pixel_becomes_a_square():
    assert enlarge(torch.tensor([[[1.0, 0.0]]]), 2).tolist() == [[[1.0, 1.0, 0.0, 0.0]] * 2]


def test_sum_adds_maps_before_the_threshold():
    maps = torch.tensor([[[[9.0, 0.0, 0.0, 1.0]]], [[[0.0, 1.0, 1.0, 9.0]]]])
    assert shape_mask(maps, Shaping(combine="sum"), ("a", "b")).tolist() == [[[1.0, 0.0, 0.0, 1.0]]]
    assert shape_mask(maps, Shaping(combine="intersection"), ("a", "b")).tolist() == [[[0.0, 0.0, 0.0, 0.0]]]


def test_invert_exchanges_inside_and_outside():
    maps = random_maps(2, 3, 7, 5)
    mask = shape_mask(maps, Shaping(), ("a", "b"))
    assert torch.equal(shape_mask(maps, Shaping(invert=True), ("a", "b")), 1 - mask)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (torch.zeros(1, 1, 4, 4), "same value everywhere"),
        (torch.full((1, 1, 4, 4), 0.3), "same value everywhere"),
        (torch.tensor([[[[1.0, float("nan")]]]]), "not finite"),
        (torch.tensor([[[[1.0, float("inf")]]]]), "not finite"),
    ],
)
@pytest.mark.parametrize("rule", RULES)
def test_a_degenerate_map_is_an_error_that_names_the_word(bad, words, rule):
    with pytest.raises(ValueError, match=f"'dog'.*{words}"):
        shape_mask(bad, Shaping(rule=rule, value=0.5), ("dog",))


def test_only_the_degenerate_word_is_named():
    maps = torch.stack([random_maps(1, 4, 4), torch.ones(1, 4, 4)])
    with pytest.raises(ValueError, match="'beach'") as error:
        shape_mask(maps, Shaping(combine="union"), ("dog", "beach"))
    assert "'dog'" not in str(error.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: gaussian_smooth(torch.ones(1, 4, 4), -1.0, 3), "sigma -1.0 is negative"),
        (lambda: gaussian_smooth(torch.ones(1, 4, 4), 1.0, 4), "size 4 must be an odd number"),
        (lambda: dilate(torch.ones(1, 4, 4), 0, 1), "size 0 must be an odd number"),
        (lambda: dilate(torch.ones(1, 4, 4), 3, -1), "iterations -1 is negative"),
        (lambda: erode(torch.ones(1, 4, 4), 2, 1), "size 2 must be an odd number"),
        (lambda: Shaping(rule="median"), "'median' is not one of: mean, log-mean"),
        (lambda: Shaping(combine="xor"), "'xor' is not one of: sum, union"),
        (lambda: threshold(random_maps(1, 1, 4, 4), "quantile", 1.5, ("dog",)), "quantile 1.5 must lie between 0"),
        (lambda: threshold(random_maps(1, 1, 4, 4), "triangle", 0, ("dog",)), "'triangle' is not one of"),
    ],
)
def test_mistakes_state_the_value_and_what_is_allowed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_half_precision_maps_keep_their_dtype():
    maps = random_maps(1, 1, 8, 8).to(torch.bfloat16)
    assert mean_threshold(gaussian_smooth(dilate(maps, 3, 1), 1.0, 3), 0).dtype == torch.bfloat16


def test_masks_of_several_layers_intersect_behind_the_union_of_their_words():
    one, other = torch.zeros(2, 1, 1, 4), torch.zeros(2, 1, 1, 4)
    one[0, ..., 0], one[1, ..., 1] = 1, 1
    other[0, ..., 1], other[1, ..., 3] = 1, 1
    maps, labels = torch.cat([one, other]), ("dog", "cat", "dog", "cat")
    assert shape_mask(maps, Shaping(combine="union"), labels, layers=2).tolist() == [[[0, 1, 0, 0]]]
    assert shape_mask(maps, Shaping(combine="union", invert=True), labels, layers=2).tolist() == [[[1, 0, 1, 1]]]
    with pytest.raises(ValueError, match="'dog'"):
        shape_mask(maps * torch.tensor([1, 1, 0, 1]).view(4, 1, 1, 1), Shaping(combine="union"), labels, layers=2)


def test_a_mask_is_smoothed_and_grown_behind_the_threshold_on_request():
    """Smoothing before the threshold would lose the single bright place; behind it the mask has a soft edge."""
    maps = torch.zeros(1, 1, 1, 7)
    maps[..., 1], maps[..., 4:6] = 3, 6
    after = Shaping(sigma=100.0, size=3, dilation=3, iterations=0, filtered="after the threshold")
    # a window of nearly equal weights: thirds
    expected = [1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1 / 3]
    assert shape_mask(maps, after, ("dog",))[0, 0].tolist() == pytest.approx(expected, abs=1e-3)
    grown = replace(after, iterations=1)
    expected = [1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert shape_mask(maps, grown, ("dog",))[0, 0].tolist() == pytest.approx(expected, abs=1e-3)
    inverted = shape_mask(maps, replace(grown, invert=True), ("dog",))
    assert inverted[0, 0].tolist() == pytest.approx([1 - value for value in expected], abs=1e-3)
    with pytest.raises(ValueError, match="before the threshold, after the threshold"):
        Shaping(filtered="never")


def test_one_flat_latent_channel_can_be_all_in_or_all_out_and_the_others_are_divided():
    ramp = torch.arange(16.0).view(4, 4)
    maps = torch.stack([ramp, torch.full((4, 4), 3.0)]).view(1, 1, 2, 4, 4)
    divided = (ramp > ramp.mean()).float()
    for flat, everywhere in (("all in", 1.0), ("all out", 0.0)):
        mask = shape_mask(maps, Shaping("mean", flat=flat), ("dog",))
        assert torch.equal(mask[0, 0], divided)
        assert torch.equal(mask[0, 1], torch.full((4, 4), everywhere))
        inverted = shape_mask(maps, Shaping("mean", invert=True, flat=flat), ("dog",))
        assert torch.equal(inverted, 1 - mask)
    with pytest.raises(ValueError, match=r"same value everywhere.* let flat_map take all or nothing of it"):
        shape_mask(maps, Shaping("mean"), ("dog",))


@pytest.mark.parametrize("rule", RULES)
def test_a_map_of_zeros_can_be_all_in_or_all_out_under_every_rule(rule):
    for flat, everywhere in (("all in", 1.0), ("all out", 0.0)):
        mask = each_mask(torch.zeros(2, 1, 4, 4), Shaping(rule, 0.5, flat=flat), ("dog", "cat"))
        assert torch.equal(mask, torch.full((2, 1, 4, 4), everywhere))


def test_a_map_that_is_not_finite_is_an_error_whatever_becomes_of_flat_ones():
    with pytest.raises(ValueError, match="not finite"):
        shape_mask(torch.full((1, 1, 4, 4), torch.nan), Shaping(flat="all out"), ("dog",))
    with pytest.raises(ValueError, match="'none' is not one of: error, all in, all out"):
        Shaping(flat="none")
