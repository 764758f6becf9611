"""MasaCtrl's masks: which queries look at which keys."""

from __future__ import annotations

import torch

from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention, matching_places, on_grid
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window


def test_what_is_inside_looks_inside_and_what_is_outside_looks_outside():
    source, target = torch.tensor([1, 1, 0, 0]).bool(), torch.tensor([0, 1, 0, 0]).bool()
    inside, outside = matching_places(source, target)
    assert [each.tolist() for each in inside] == [[1], [0, 1]]
    assert [each.tolist() for each in outside] == [[0, 2, 3], [2, 3]]


def test_where_the_source_has_one_side_alone_every_query_looks_everywhere():
    """The authors' code gives the mean of all values there, or NaN."""
    target = torch.tensor([0, 1, 0]).bool()
    assert matching_places(torch.zeros(3).bool(), target) == []
    assert matching_places(torch.ones(3).bool(), target) == []
    (only,) = matching_places(torch.tensor([1, 0, 0]).bool(), torch.ones(3).bool())
    assert [each.tolist() for each in only] == [[0, 1, 2], [0]]


def test_masks_are_brought_to_the_grid_by_the_nearest_place_and_cut_at_half():
    mask = torch.tensor([[[0.6, 0.6, 0.4, 0.0], [0.6, 1.0, 0.0, 0.0], [0.0, 0.0, 0.7, 0.2], [0.0, 0.0, 0.1, 0.3]]])
    assert on_grid(mask, (2, 2)).tolist() == [[True, False, False, True]]
    assert on_grid(mask, (4, 4)).tolist() == [(mask[0].flatten() > 0.5).tolist()]


def test_the_published_start_is_after_four_of_fifty_steps():
    method = MutualSelfAttention(Window(0.08, 1.0))
    assert [method.acts(step, 50) for step in (0, 3, 4, 49)] == [False, False, True, True]
    assert not any(MutualSelfAttention(Window(1.0, 1.0)).acts(step, 50) for step in range(50))
