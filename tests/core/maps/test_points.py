"""Points as text, and out of a mask."""

import json
import math

import pytest
import torch

from explainable_latents.nodes.core.maps.points import coordinates_text, points_text, read_points, spread_points

SIZE = (40, 60)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[[1, 2], [59.5, 40]]", [[1, 2], [59.5, 40]]),
        ("[[10.25, 20.5, 0.93]]", [[10.25, 20.5]]),  # with a confidence, as Find Points writes it
        ('[{"x": 10, "y": 20}]', [[10.5, 20.5]]),
        ("[{'x': 10.7, 'y': 20.2}, {'x': 0, 'y': 39}]", [[10.5, 20.5], [0.5, 39.5]]),  # as KJNodes writes it
        (" [ [ 0 , 0 ] ] ", [[0, 0]]),
    ],
)
def test_both_forms_are_read(text, expected):
    assert read_points(text, SIZE).tolist() == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "are not a list of the form"),
        ("10, 20", "are not a list of the form"),
        ("[]", "at least one point"),
        ('{"x": 1, "y": 2}', "at least one point"),
        ("[[1]]", r"\[1\] is not a point"),
        ("[1, 2]", "1 is not a point"),
        ('[["a", "b"]]', "is not a point"),
        ("[[NaN, 1]]", "is not a point"),
        ('[{"x": 3}]', "is not a point"),
        ("[[true, null]]", "is not a point"),
        ("[[60.5, 3]]", r"\(60.5, 3\) is outside of the picture of 60x40 pixels"),
        ('[{"x": -1, "y": 3}]', r"\(-0.5, 3.5\) is outside"),
    ],
)
def test_a_mistake_says_what_is_wrong(text, words):
    with pytest.raises(ValueError, match=words):
        read_points(text, SIZE)


def test_what_is_written_can_be_read_again():
    points = torch.tensor([[10.5, 20.5], [0.5, 39.5]])
    written = points_text(points, torch.tensor([0.875, -0.25]))
    assert json.loads(written) == [[10.5, 20.5, 0.875], [0.5, 39.5, -0.25]]
    assert torch.equal(read_points(written, SIZE), points)
    whole = coordinates_text(points)
    assert json.loads(whole) == [{"x": 10, "y": 20}, {"x": 0, "y": 39}]
    assert torch.equal(read_points(whole, SIZE), points)


def test_points_are_spread_over_a_mask_from_its_deepest_place():
    mask = torch.zeros(40, 60)
    mask[5:26, 10:51] = 1  # 21 x 41, its deepest row is 15
    points = spread_points(mask, 5)
    assert points[0, 1] == 15.5
    assert len(points.unique(dim=0)) == 5
    for x, y in points.tolist():
        assert mask[math.floor(y), math.floor(x)] == 1
        assert min(x - 10, 51 - x, y - 5, 26 - y) >= 2.5, "on the outline"
    distances = torch.cdist(points, points) + 1e9 * torch.eye(5)
    assert distances.min() > 8
    assert torch.equal(points, spread_points(mask, 5))
    assert torch.equal(points[:3], spread_points(mask, 3))


def test_each_further_point_is_the_farthest_by_a_plain_loop():
    generator = torch.Generator().manual_seed(0)
    mask = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 30, 37, generator=generator), 5, 1, 2)[0, 0]
    mask = (mask > 0.5).float()
    points = spread_points(mask, 6).tolist()
    candidates = spread_points(mask, 10_000).tolist()  # all places that can be chosen
    for i in range(1, 6):
        nearest = [min(math.dist(place, other) for other in points[:i]) for place in candidates]
        assert min(math.dist(points[i], other) for other in points[:i]) == pytest.approx(max(nearest))


def test_a_small_mask_has_as_many_points_as_pixels_and_an_empty_one_is_an_error():
    mask = torch.zeros(8, 9)
    mask[3, 4] = 1
    assert spread_points(mask, 8).tolist() == [[4.5, 3.5]]
    with pytest.raises(ValueError, match="the mask is empty"):
        spread_points(torch.full((8, 9), 0.5), 8)
