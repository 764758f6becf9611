"""Boxes with words, and what share of a grid's cells each covers."""

from __future__ import annotations

import dataclasses
import math
import random

import pytest
import torch

from explainable_latents.nodes.core.layout import Box, Layout


def fine_share(box: Box, height: int, width: int, points: int) -> torch.Tensor:
    """The share by brute force: of a lattice of points x points in each cell, how many lie in the box."""
    y = (torch.arange(height * points, dtype=torch.float64) + 0.5) / (height * points)
    x = (torch.arange(width * points, dtype=torch.float64) + 0.5) / (width * points)
    inside = ((y > box.top) & (y < box.bottom))[:, None] & ((x > box.left) & (x < box.right))[None]
    return inside.double().reshape(height, points, width, points).mean((1, 3))


def random_box(numbers: random.Random) -> Box:
    left, right = sorted(numbers.random() for _ in "lr")
    top, bottom = sorted(numbers.random() for _ in "tb")
    return Box("dog", left, top, right, bottom)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (5, 9), (13, 3)])
def test_share_is_the_covered_area_of_each_cell(size):
    """Each side of a box is off by at most half of a point's distance in the brute force."""
    numbers = random.Random(3)
    for _ in range(20):
        box = random_box(numbers)
        share = Layout.share(box, *size)
        assert share.shape == size
        assert share.dtype == torch.float32
        torch.testing.assert_close(share.double(), fine_share(box, *size, 100), atol=0.03, rtol=0)
        area = (box.right - box.left) * (box.bottom - box.top) * size[0] * size[1]
        assert share.double().sum().item() == pytest.approx(area, rel=1e-5)  # float32


def test_shares_written_down():
    half = Layout.share(Box("dog", 0, 0, 0.5, 1), 2, 4)
    assert half.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert Layout.share(Box("dog", 0, 0, 0.5, 1), 1, 3)[0].tolist() == [1, 0.5, 0]
    assert Layout.share(Box("dog", 0.25, 0.25, 0.75, 0.5), 2, 2).tolist() == [[0.25, 0.25], [0, 0]]


def test_the_whole_picture_covers_every_cell_exactly():
    for cells in range(1, 130):
        assert (Layout.share(Box("dog", 0, 0, 1, 1), cells, 3) == 1).all()


def test_a_box_smaller_than_a_cell_is_still_there():
    share = Layout.share(Box("ant", 0.51, 0.51, 0.52, 0.52), 4, 4)
    assert share.count_nonzero() == 1
    assert share[2, 2].item() == pytest.approx(16 * 0.0001, rel=1e-5)  # float32


@pytest.mark.parametrize(
    "sides",
    [(0.5, 0, 0.5, 1), (0.6, 0, 0.5, 1), (-0.1, 0, 1, 1), (0, 0, 1.01, 1), (0, 0.9, 1, 0.1), (0, 0, math.nan, 1)],
)
def test_sides_that_are_no_box_are_refused(sides):
    with pytest.raises(ValueError, match=r"'dog' has left .* shares of the picture from 0 to 1"):
        Box("dog", *sides)


def test_a_box_without_words_and_a_layout_without_boxes_are_refused():
    with pytest.raises(ValueError, match="no words"):
        Box("  ", 0, 0, 1, 1)
    with pytest.raises(ValueError, match="at least one"):
        Layout(())


def test_nothing_of_a_layout_can_be_changed():
    box = Box("dog", 0, 0, 1, 1)
    for each, name in ((box, "left"), (Layout((box,)), "boxes")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(each, name, 0)
