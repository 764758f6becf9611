"""Correspondence against a plain loop over pixels, as in the code of DIFT: enlarged features, cosine, the largest."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.methods import correspondence
from explainable_latents.nodes.core.methods.correspondence import (
    carry_mask,
    features_at,
    find_points,
    similarity_maps,
)


def features(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def enlarged(values, size):
    return F.interpolate(values[None].double(), size=size, mode="bilinear", align_corners=False)[0].numpy()


def cosine(a, b):
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


# (grid of the features, size of the picture): square and not, odd, one row, larger than the picture
SIZES = [
    ((4, 4), (16, 16)),
    ((3, 5), (23, 41)),
    ((5, 2), (9, 9)),
    ((1, 6), (7, 50)),
    ((1, 1), (3, 4)),
    ((6, 8), (5, 7)),
]


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_similarity_is_the_cosine_with_the_enlarged_features(grid, size):
    values, queries = features(7, *grid), features(3, 7, seed=1)
    whole = enlarged(values, size)
    found = similarity_maps(queries, values, size)
    for p in range(3):
        for y in range(size[0]):
            for x in range(size[1]):
                expected = cosine(queries[p].double().numpy(), whole[:, y, x])
                # float32, and a length that is a sum of ten products
                assert float(found[p, y, x]) == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize(("grid", "size"), SIZES)
def test_features_at_pixel_centres_are_those_of_the_enlarged_picture(grid, size):
    values = features(7, *grid)
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    points = torch.stack([x.flatten(), y.flatten()], 1) + 0.5
    expected = torch.from_numpy(enlarged(values, size)).flatten(1).T
    torch.testing.assert_close(features_at(values, points, size).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("at_once", [1 << 24, 1, 700])
def test_points_are_where_a_loop_finds_them(monkeypatch, at_once):
    monkeypatch.setattr(correspondence, "AT_ONCE", at_once)  # in one block, or one point at a time
    a, b, size_a, size_b = features(6, 3, 5), features(6, 4, 3, seed=1), (24, 40), (33, 21)
    points = torch.tensor([[0.5, 0.5], [39.5, 23.5], [17.25, 3.0], [20.0, 12.0], [40.0, 0.0]])
    found = find_points(a, b, points, size_a, size_b)
    whole_a, whole_b = enlarged(a, size_a), enlarged(b, size_b)
    for p, query in enumerate(features_at(a, points, size_a).double().numpy()):
        value, places = most_similar(query, whole_b)
        assert float(found.similarity[p]) == pytest.approx(value, abs=2e-5)
        x, y = found.points[p].tolist()
        assert (x, y) in places
        _, again = most_similar(whole_b[:, int(y), int(x)], whole_a)
        distances = [np.hypot(*(points[p].numpy() - place)) for place in again]
        assert min(abs(float(found.back[p]) - distance) for distance in distances) < 1e-3


def most_similar(query, whole):
    """The largest cosine, and the pixel centres that have it: several where a border cell is repeated."""
    values = {
        (x + 0.5, y + 0.5): cosine(query, whole[:, y, x]) for y in range(whole.shape[1]) for x in range(whole.shape[2])
    }
    best = max(values.values())
    return best, [place for place, value in values.items() if value > best - 1e-6]


def test_a_picture_finds_itself_and_a_shift_by_whole_cells_exactly():
    whole = features(64, 8, 12)
    centres = torch.tensor([[(j + 0.5) * 8, (i + 0.5) * 8] for i in range(1, 7) for j in range(1, 9)])
    itself = find_points(whole, whole, centres, (64, 96), (64, 96))
    assert (itself.points - centres).abs().max() <= 0.5  # a cell's centre lies between two pixels
    assert (itself.similarity > 0.99).all()
    shifted = find_points(whole[:, :, 2:], whole[:, :, :-2], centres, (64, 80), (64, 80))
    assert (shifted.points - centres - torch.tensor([16.0, 0])).abs()[centres[:, 0] < 64].max() <= 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_in_half_precision_are_compared_in_float32(dtype):
    """Products of features in the hundreds, as real networks have them, do not fit into float16."""
    a, b = (300 * features(6, 4, 4, seed=seed) for seed in (0, 1))
    points = torch.tensor([[3.0, 5.0], [20.0, 30.0]])
    rounded = find_points(a.to(dtype), b.to(dtype), points, (32, 32), (32, 32))
    expected = find_points(a.to(dtype).float(), b.to(dtype).float(), points, (32, 32), (32, 32))
    assert torch.equal(rounded.points, expected.points)
    assert rounded.similarity.dtype == torch.float32
    assert torch.equal(rounded.similarity, expected.similarity)


@pytest.mark.parametrize("neighbours", [1, 4, 15])
@pytest.mark.parametrize("at_once", [1 << 24, 40])
def test_a_mask_is_carried_as_a_loop_carries_it(monkeypatch, neighbours, at_once):
    monkeypatch.setattr(correspondence, "AT_ONCE", at_once)
    a, b = features(6, 3, 5), features(6, 4, 7, seed=1)
    mask = torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    found = carry_mask(a, b, mask, neighbours)
    assert found.shape == (4, 7)
    cells = a.double().flatten(1).T.numpy()
    for y in range(4):
        for x in range(7):
            query = b[:, y, x].double().numpy()
            order = sorted(range(15), key=lambda i, query=query: -cosine(query, cells[i]))
            expected = np.mean([mask.flatten()[i] for i in order[:neighbours]])
            assert float(found[y, x]) == pytest.approx(expected, abs=1e-6)


def test_carrying_to_the_same_picture_gives_the_mask_and_all_neighbours_its_mean():
    a, mask = features(6, 3, 5), torch.rand(3, 5, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(carry_mask(a, 7 * a, mask, 1), mask)
    torch.testing.assert_close(carry_mask(a, a, mask, 15), mask.mean().expand(3, 5))
    for wrong in (0, 16):
        with pytest.raises(ValueError, match=f"neighbours {wrong} is not from 1 to 15"):
            carry_mask(a, a, mask, wrong)
