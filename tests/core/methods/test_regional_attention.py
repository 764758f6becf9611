"""Shares of prompts at the places of a picture, and the parts that ratios name."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.regional_attention import coverage, divided, on_grid, shares


def test_shares_are_the_masks_where_they_do_not_overlap_and_the_base_has_the_rest():
    masks = torch.tensor([[[[1.0, 0.25, 0.0, 0.0]]], [[[0.0, 0.5, 0.0, 1.0]]]])
    own, first, second = shares(masks)
    assert own.tolist() == [[[0.0, 0.25, 1.0, 0.0]]]
    assert first.tolist() == [[[1.0, 0.25, 0.0, 0.0]]]
    assert second.tolist() == [[[0.0, 0.5, 0.0, 1.0]]]


def test_masks_that_overlap_share_by_their_strengths():
    own, first, second = shares(torch.tensor([3.0, 1.0]).reshape(2, 1, 1, 1))
    assert (float(own), float(first), float(second)) == (0.0, 0.75, 0.25)


def test_the_base_prompt_keeps_its_share_inside():
    """Regional Prompter's 0.2; half a mask gives half of the rest."""
    own, region = shares(torch.tensor([1.0, 0.5, 0.0]).reshape(1, 1, 1, 3), base=0.2)
    torch.testing.assert_close(region.flatten(), torch.tensor([0.8, 0.4, 0.0]))
    torch.testing.assert_close(own.flatten(), torch.tensor([0.2, 0.6, 1.0]))


def test_shares_sum_to_one_on_every_grid():
    masks = torch.rand(3, 2, 15, 9, generator=torch.Generator().manual_seed(0)) * 2
    for grid in ((15, 9), (8, 5), (4, 3)):
        found = on_grid(shares(masks, 0.1), grid)
        assert found.shape == (4, 2, grid[0] * grid[1])
        torch.testing.assert_close(found.sum(0), torch.ones(2, grid[0] * grid[1]))  # float32


def test_a_layers_place_has_the_mean_of_what_it_stands_for_and_queries_go_row_by_row():
    mask = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    assert on_grid(mask.reshape(1, 1, 2, 4), (1, 2)).tolist() == [[[0.75, 0.0]]]
    assert on_grid(mask.reshape(1, 1, 2, 4), (2, 4)).flatten().tolist() == mask.flatten().tolist()
    # exactly 1 stays exactly 1, also where the grid does not divide the latent
    assert (on_grid(torch.ones(1, 1, 15, 9), (8, 5)) == 1).all()


def test_a_rectangle_covers_the_places_at_its_edge_in_part():
    found = coverage((1.0, 0.5, 0.0, 0.25), (2, 5))
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.75, 1.0, 0.75, 0.0]]).expand(2, -1))
    assert coverage((2.0, 2.0, -0.5, -0.5), (3, 3)).tolist() == torch.ones(3, 3).tolist()  # more than the picture
    assert not coverage((0.5, 0.5, 1.0, 0.0), (3, 3)).any()


@pytest.mark.parametrize(
    ("ratios", "cells"),
    [
        ("1", [(1, 1, 0, 0)]),
        ("1,1", [(1, 0.5, 0, 0), (1, 0.5, 0, 0.5)]),
        ("1, 3", [(1, 0.25, 0, 0), (1, 0.75, 0, 0.25)]),
        ("1;3", [(0.25, 1, 0, 0), (0.75, 1, 0.25, 0)]),
        ("1,2;1,1", [(0.5, 1, 0, 0), (0.5, 1, 0.5, 0)]),
        ("1,1,1;3", [(0.25, 0.5, 0, 0), (0.25, 0.5, 0, 0.5), (0.75, 1, 0.25, 0)]),
    ],
)
def test_ratios_name_the_parts_row_by_row(ratios, cells):
    assert divided(ratios) == cells


@pytest.mark.parametrize("ratios", ["1,1,1", "3;1;2", "1,2,3,4;5,6,7"])
def test_the_parts_of_ratios_cover_every_place_once(ratios):
    size = (16, 9)
    total = torch.stack([coverage(area, size) for area in divided(ratios)]).sum(0)
    torch.testing.assert_close(total, torch.ones(size))  # float32


@pytest.mark.parametrize("ratios", ["", "1,,1", "1,x", "0,1", "-1", "1;", "inf"])
def test_what_is_no_list_of_ratios_is_refused_with_examples(ratios):
    with pytest.raises(ValueError, match=r"not a list of numbers above 0\. Write 1,2 for two columns"):
        divided(ratios)
