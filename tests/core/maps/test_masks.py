"""Masks of several words, layers and channels, worked out by hand, and their properties on random maps."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given

from explainable_latents.nodes.core.maps.filters import apply_filter, dilate, gaussian_smooth
from explainable_latents.nodes.core.maps.masks import Shaping, enlarge, mask_per_map, saliency_masks, shape_mask
from explainable_latents.nodes.core.maps.saliency import Saliency
from explainable_latents.nodes.core.maps.thresholds import RULES, above_threshold

from .random_maps import ANY_MAPS, is_flat, labels_of, random_maps


def saliency(*shape: int) -> Saliency:
    maps = random_maps(*shape)
    return Saliency(maps, tuple(f"word {i}" for i in range(shape[0])), 3.0, 7, tuple(shape[-2:]))


@given(ANY_MAPS)
def test_union_covers_every_subject_and_intersection_lies_in_each(maps):
    if is_flat(maps):
        return
    union = shape_mask(maps, Shaping(combine="union"), labels_of(maps))
    intersection = shape_mask(maps, Shaping(combine="intersection"), labels_of(maps))
    each = mask_per_map(maps, Shaping(), labels_of(maps))
    for subject, label, mask in zip(maps, labels_of(maps), each, strict=True):
        alone = shape_mask(subject[None], Shaping(), (label,))
        assert torch.equal(mask, alone)
        assert (union >= alone).all()
        assert (intersection <= alone).all()


def test_one_level_for_all_channels_or_one_for_each():
    maps = torch.tensor([[[[[0.0, 1.0]], [[8.0, 11.0]]]]])  # two channels of 1 x 2
    assert above_threshold(maps, "mean", 0, ("dog",)).tolist() == [[[[[False, True]], [[False, True]]]]]
    together = above_threshold(maps, "mean", 0, ("dog",), across_channels=True)
    assert together.tolist() == [[[[[False, False]], [[True, True]]]]]
    # mean 5, variance (25 + 16 + 9 + 36) / 4 = 21.5: the level is 5 + 21.5 ** 0.5 = 9.64
    shaping = Shaping("mean + k·std", 1.0, across_channels=True)
    assert shape_mask(maps, shaping, ("dog",)).tolist() == [[[[0.0, 0.0]], [[0.0, 1.0]]]]


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
    after = Shaping(
        smooth_sigma=100.0, smooth_size=3, dilate_size=3, dilate_iterations=0, smooth_and_dilate="after the threshold"
    )
    # a window of nearly equal weights: thirds
    expected = [1 / 3, 1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 1 / 3]
    assert shape_mask(maps, after, ("dog",))[0, 0].tolist() == pytest.approx(expected, abs=1e-3)
    grown = replace(after, dilate_iterations=1)
    expected = [1 / 3, 1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3, 2 / 3]
    assert shape_mask(maps, grown, ("dog",))[0, 0].tolist() == pytest.approx(expected, abs=1e-3)
    inverted = shape_mask(maps, replace(grown, invert=True), ("dog",))
    assert inverted[0, 0].tolist() == pytest.approx([1 - value for value in expected], abs=1e-3)
    with pytest.raises(ValueError, match="before the threshold, after the threshold"):
        Shaping(smooth_and_dilate="never")


def test_one_flat_latent_channel_can_be_all_in_or_all_out_and_the_others_are_divided():
    ramp = torch.arange(16.0).view(4, 4)
    maps = torch.stack([ramp, torch.full((4, 4), 3.0)]).view(1, 1, 2, 4, 4)
    divided = (ramp > ramp.mean()).float()
    for flat, everywhere in (("all in", 1.0), ("all out", 0.0)):
        mask = shape_mask(maps, Shaping("mean", flat_map=flat), ("dog",))
        assert torch.equal(mask[0, 0], divided)
        assert torch.equal(mask[0, 1], torch.full((4, 4), everywhere))
        inverted = shape_mask(maps, Shaping("mean", invert=True, flat_map=flat), ("dog",))
        assert torch.equal(inverted, 1 - mask)
    with pytest.raises(ValueError, match=r"same value everywhere.* let flat_map take all or nothing of it"):
        shape_mask(maps, Shaping("mean"), ("dog",))


@pytest.mark.parametrize("rule", RULES)
def test_a_map_of_zeros_can_be_all_in_or_all_out_under_every_rule(rule):
    for flat, everywhere in (("all in", 1.0), ("all out", 0.0)):
        mask = mask_per_map(torch.zeros(2, 1, 4, 4), Shaping(rule, 0.5, flat_map=flat), ("dog", "cat"))
        assert torch.equal(mask, torch.full((2, 1, 4, 4), everywhere))


def test_a_map_that_is_not_finite_is_an_error_whatever_becomes_of_flat_ones():
    with pytest.raises(ValueError, match="not finite"):
        shape_mask(torch.full((1, 1, 4, 4), torch.nan), Shaping(flat_map="all out"), ("dog",))
    with pytest.raises(ValueError, match="'none' is not one of: error, all in, all out"):
        Shaping(flat_map="none")


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Shaping(rule="median"), "rule 'median' is not one of: mean, log-mean"),
        (lambda: Shaping(combine="xor"), "combine 'xor' is not one of: sum, union"),
    ],
)
def test_mistakes_state_the_value_and_what_is_allowed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


def test_masks_of_each_word_come_word_by_word():
    given = saliency(2, 3, 9, 7)
    each = saliency_masks(given, Shaping(), "together", separate=True)
    assert each.shape == (6, 9, 7)
    for word in range(2):
        for latent in range(3):
            alone = given.maps[word : word + 1, latent : latent + 1]
            assert torch.equal(each[3 * word + latent], shape_mask(alone, Shaping(), ("word",))[0])
    assert torch.equal(saliency_masks(given, Shaping(invert=True), "together", separate=True), 1 - each)
    union = saliency_masks(given, Shaping(combine="union"), "together")
    assert torch.equal(union, each.view(2, 3, 9, 7).amax(0))


def test_channels_become_one_mask():
    given = saliency(2, 3, 4, 9, 7)
    otsu = Shaping("otsu", combine="intersection")
    together = saliency_masks(given, otsu, "together")
    assert torch.equal(together, shape_mask(given.maps.mean(2), otsu, given.labels))
    for channels, whole in (("each", False), ("whole", True)):
        share = saliency_masks(given, Shaping(combine="union"), channels)
        assert torch.equal(
            share, shape_mask(given.maps, Shaping(combine="union", across_channels=whole), given.labels).mean(1)
        )
        assert set(share.unique().tolist()) <= {0.0, 0.25, 0.5, 0.75, 1.0}
        assert saliency_masks(given, Shaping(), channels, separate=True).shape == (6, 9, 7)


def test_filters_before_the_threshold_are_those_of_the_samplers():
    given = saliency(1, 2, 16, 16)
    by_nodes = apply_filter(
        apply_filter(given, lambda maps: gaussian_smooth(maps, 2.0, 5)), lambda maps: dilate(maps, 3, 2)
    )
    by_sampler = Shaping("mean", smooth_sigma=2.0, smooth_size=5, dilate_size=3, dilate_iterations=2)
    expected = shape_mask(given.maps, by_sampler, given.labels)
    assert torch.equal(saliency_masks(by_nodes, Shaping("mean"), "together"), expected)


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (lambda: Shaping("median"), "'median' is not one of"),
        (lambda: Shaping(combine="xor"), "'xor' is not one of"),
        (lambda: Shaping(parts="some"), "'some' is not one of: all, largest, touching points"),
        (
            lambda: saliency_masks(saliency(1, 1, 4, 4), Shaping(), "some"),
            "'some' is not one of: together, each",
        ),
        (lambda: saliency_masks(saliency(1, 1, 4, 4), Shaping("quantile", 7.0), "together", True), "quantile 7.0"),
    ],
)
def test_an_unknown_choice_is_named(choice, words):
    with pytest.raises(ValueError, match=words):
        choice()


def test_a_map_without_information_is_named():
    flat = Saliency(torch.ones(1, 1, 4, 4), ("dog",), 1.0, None, (4, 4))
    for combine, separate in (("union", False), ("union", True), ("sum", False)):
        with pytest.raises(ValueError, match="'dog' has the same value everywhere"):
            saliency_masks(flat, Shaping(combine=combine), "together", separate)
