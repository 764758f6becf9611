"""Regions: in falling order of their area, each with its mask, its colour and the word that is strongest in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from explainable_latents.nodes.core.maps.colours import distinct_colours
from explainable_latents.nodes.core.maps.regions import named, regions_of
from tests.core.enlarging import enlarged

LABELS = torch.tensor([[5, 5, 5, 1], [5, 5, 1, 1], [3, 3, 7, 7]])


def test_the_largest_region_is_the_first_and_numbers_without_pixels_are_left_out():
    """Of the regions 3 and 7, equally large, 3 comes first."""
    regions = regions_of(LABELS)
    assert regions.areas == (5, 3, 2, 2)
    assert regions.labels.tolist() == [[0, 0, 0, 1], [0, 0, 1, 1], [2, 2, 3, 3]]


def test_every_pixel_is_in_one_mask():
    masks = regions_of(LABELS).masks()
    assert masks.dtype == torch.float32
    assert masks.sum((1, 2)).tolist() == [5, 3, 2, 2]
    assert torch.equal(masks.sum(0), torch.ones(3, 4))
    assert torch.equal(masks[1], (LABELS == 1).float())


def test_the_picture_has_each_regions_colour_and_the_lines_name_it():
    regions = regions_of(LABELS)
    picture, colours = regions.picture(), distinct_colours(4)
    assert torch.equal(picture, colours[regions.labels])
    names = [f"#{''.join(f'{round(255 * float(c)):02x}' for c in colour)}" for colour in colours]
    shares = ["41.7%", "25.0%", "16.7%", "16.7%"]
    assert regions.lines() == [f"{share}, {name}" for share, name in zip(shares, names, strict=True)]
    words = named(regions, torch.ones(1, 3, 4), ["dog"])
    assert words.lines() == [f"dog, {line}" for line in regions.lines()]


def test_each_region_takes_the_word_that_is_strongest_in_it():
    """The second word gets ten times the attention everywhere, but on the right, relatively, it gets less."""
    labels = torch.tensor([[0, 1]]).repeat_interleave(8, 0).repeat_interleave(8, 1)
    maps = torch.tensor([[[1.0, 2.0]], [[30.0, 20.0]]])
    assert named(regions_of(labels), maps, ["cat", "sea"]).names == ("sea", "cat")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_strength_is_the_mean_of_the_enlarged_map_over_its_length(dtype):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 6, (3, 5), generator=generator).repeat_interleave(8, 0).repeat_interleave(8, 1)
    maps = torch.rand(4, 3, 5, generator=generator).to(dtype)
    regions = regions_of(labels)
    words = ["a", "b", "c", "d"]
    large = enlarged(maps.double().numpy(), (24, 40))
    expected = []
    for region in range(len(regions.areas)):
        inside = regions.labels.numpy() == region
        strengths = [each[inside].mean() / np.sqrt((each**2).sum()) for each in large]
        first, second = sorted(strengths)[:-3:-1]
        assert first - second > 1e-6, "float32 could decide otherwise: take another seed"
        expected.append(words[int(np.argmax(strengths))])
    assert named(regions, maps, words).names == tuple(expected)
    assert len(set(expected)) > 1


def test_a_word_without_attention_names_nothing_and_of_equals_the_first_counts():
    maps = torch.stack([torch.zeros(2, 2), torch.ones(2, 2), torch.ones(2, 2)])
    assert set(named(regions_of(LABELS), maps, ["none", "first", "second"]).names) == {"first"}
