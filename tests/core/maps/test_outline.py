"""The outline of a mask against the places that it encloses."""

import pytest
import torch

from explainable_latents.nodes.core.maps.outline import outline


def enclosed(lines: torch.Tensor, height: int, width: int, upright: bool = True) -> torch.Tensor:
    """The places with an odd number of lines on their left; not upright: above them."""
    if not upright:
        return enclosed(lines[:, [1, 0, 3, 2]], width, height).T
    crossed = torch.zeros(height, width, dtype=torch.int)
    for x, top, x_end, bottom in lines.tolist():
        if x == x_end:
            crossed[top:bottom, x:] += 1
    return crossed % 2 == 1


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (9, 1), (6, 8), (33, 20)])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_lines_enclose_what_is_inside_from_the_left_and_from_above(size, share):
    inside = torch.rand(size, generator=torch.Generator().manual_seed(1)) < share
    lines = outline(inside)
    assert torch.equal(enclosed(lines, *size), inside)
    assert torch.equal(enclosed(lines, *size, upright=False), inside)


def test_lines_are_as_long_as_they_go():
    assert outline(torch.ones(2, 3, dtype=torch.bool)).tolist() == [
        [0, 0, 0, 2],
        [3, 0, 3, 2],
        [0, 0, 3, 0],
        [0, 2, 3, 2],
    ]
    corner = torch.tensor([[True, False], [False, True]])
    assert [line for line in outline(corner).tolist() if line[0] == line[2] == 1] == [[1, 0, 1, 2]]


def test_nothing_inside_has_no_outline():
    assert outline(torch.zeros(4, 5, dtype=torch.bool)).shape == (0, 4)
