"""The self-attention of all layers on one grid, against the matrices written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from explainable_latents.nodes.core.attention import place_maps
from explainable_latents.nodes.core.attention.place_maps import PlaceMaps, most_places, nearest
from tests.core.enlarging import enlarged
from tests.host.memory import MostBytes

HEADS, CHANNELS = 3, 4

# Probabilities of float32 scores that are at most some 10, and sums of at most 4 of them.
CLOSE = 1e-6


def layer(grid, seed=0, *, batch=1, dtype=torch.float32, size=1.5):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, math.prod(grid), HEADS * CHANNELS)
    return tuple((size * torch.randn(shape, generator=generator)).to(dtype) for _ in range(2))


def softmax_of_heads(q, k, mask=0.0):
    """S [N,N]: mean over rows and heads."""
    q, k = (t.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for t in (q, k))
    return torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(CHANNELS) + mask, dim=-1).mean((0, 1)).numpy()


def explicit(layers, grid):
    """A of layers {own grid: [S, ...]}: each row's columns are enlarged and sum to 1, the rows repeated."""
    whole = sum(math.sqrt(math.prod(own)) for own in layers)
    total = 0
    for own, matrices in layers.items():
        maps = enlarged(np.mean(matrices, axis=0).reshape(-1, *own), grid).reshape(math.prod(own), -1)
        maps /= maps.sum(1, keepdims=True)
        rows = [
            int((y + 0.5) * own[0] / grid[0]) * own[1] + int((x + 0.5) * own[1] / grid[1])
            for y in range(grid[0])
            for x in range(grid[1])
        ]
        total = total + math.sqrt(math.prod(own)) / whole * maps[rows]
    return total


@pytest.mark.parametrize(
    "grids",
    [[(4, 4)], [(8, 8), (4, 4), (2, 2)], [(4, 6), (8, 12), (2, 3)], [(7, 11), (4, 6), (2, 3)]],
    ids=["one", "halves", "not square, coarse first", "odd"],
)
def test_it_is_the_weighted_mean_of_the_grids_means(grids):
    maps, layers = PlaceMaps(), {}
    for i, grid in enumerate([*grids, *grids[:1]]):
        q, k = layer(grid, i)
        maps.add(q, k, HEADS, grid)
        layers.setdefault(grid, []).append(softmax_of_heads(q, k))
    found, grid = maps.matrix()
    assert grid == max(grids, key=math.prod)
    assert found.dtype == torch.float32
    assert np.abs(found.numpy() - explicit(layers, grid)).max() < CLOSE
    assert torch.allclose(found.sum(1), torch.ones(len(found)), rtol=0, atol=1e-5)


@pytest.mark.parametrize(("dtype", "close"), [(torch.float16, 2e-3), (torch.bfloat16, 2e-2)])
def test_half_precision_is_computed_in_float32(dtype, close):
    """Of the same halves the numbers are those of float32; of the numbers before they were rounded, nearly those."""
    (q, k), maps = layer((6, 4), dtype=dtype), PlaceMaps()
    maps.add(q, k, HEADS, (6, 4))
    found = maps.matrix()[0].numpy()
    assert np.abs(found - softmax_of_heads(q, k)).max() < CLOSE
    assert np.abs(found - softmax_of_heads(*layer((6, 4)))).max() < close


def test_large_halves_do_not_overflow():
    """Their products are above float16's largest number."""
    q, k = layer((4, 4), dtype=torch.float16, size=300.0)
    assert not torch.isfinite(q @ k.transpose(1, 2)).all()
    maps = PlaceMaps()
    maps.add(q, k, HEADS, (4, 4))
    # of scores of some 10,000 float32 keeps three digits behind the point
    assert np.abs(maps.matrix()[0].numpy() - softmax_of_heads(q, k)).max() < 1e-2


def test_rows_are_averaged_and_masks_added():
    grid = (3, 5)
    q, k = layer(grid, batch=2)
    mask = torch.randn(15, 15, generator=torch.Generator().manual_seed(5))
    maps = PlaceMaps()
    maps.add(q, k, HEADS, grid, mask=mask)
    assert np.abs(maps.matrix()[0].numpy() - softmax_of_heads(q, k, mask.double())).max() < CLOSE


def test_blocks_of_any_size_give_the_same(monkeypatch):
    def made():
        maps = PlaceMaps()
        for i, grid in enumerate([(8, 6), (4, 3)]):
            maps.add(*layer(grid, i), HEADS, grid)
        return maps.matrix()[0]

    whole = made()
    monkeypatch.setattr(place_maps, "SUMMED_AT_ONCE", 5 * HEADS * 48)
    monkeypatch.setattr(place_maps, "ROWS", 5)
    assert torch.allclose(made(), whole, rtol=0, atol=CLOSE)


def test_a_layer_with_too_many_places_is_read_at_places_spread_evenly(monkeypatch):
    """Of 8x8 places 16 look: each at the middle of its square. What they look at is added up square by square."""
    monkeypatch.setattr(place_maps, "MOST_PLACES", 16)
    (q, k), (r, s), maps = layer((8, 8)), layer((4, 4), 1), PlaceMaps()
    maps.add(q, k, HEADS, (8, 8))
    maps.add(r, s, HEADS, (4, 4))
    found, grid = maps.matrix()
    assert grid == (4, 4)
    rows = [(2 * y + 1) * 8 + 2 * x + 1 for y in range(4) for x in range(4)]
    squares = softmax_of_heads(q, k)[rows].reshape(16, 4, 2, 4, 2).sum((2, 4)).reshape(16, 16)
    assert np.abs(found.numpy() - (squares + softmax_of_heads(r, s)) / 2).max() < CLOSE


@pytest.mark.parametrize(
    ("grid", "limited"), [((64, 64), (64, 64)), ((128, 128), (64, 64)), ((96, 64), (78, 52)), ((7, 11), (7, 11))]
)
def test_most_places_keep_the_proportions(grid, limited):
    assert most_places(grid) == limited


def test_a_place_of_the_target_has_the_nearest_of_the_source():
    assert nearest((1, 4), (1, 7), torch.device("cpu")).tolist() == [0, 0, 1, 2, 2, 3, 3]
    assert nearest((2, 2), (4, 4), torch.device("cpu")).tolist() == [0, 0, 1, 1, 0, 0, 1, 1, 2, 2, 3, 3, 2, 2, 3, 3]


def test_never_more_than_the_sum_and_a_piece_is_held():
    """The 64x64 grid's sum takes 64 MiB; all heads of one layer would take 192 MiB more."""
    grid = (64, 64)
    layers = [layer(grid), layer((32, 32), 1)]
    with MostBytes() as memory:
        maps = PlaceMaps()
        for (q, k), own in zip(layers, [grid, (32, 32)], strict=True):
            maps.add(q, k, HEADS, own)
        maps.matrix()
    assert memory.most < 90 * 2**20


def test_nothing_and_numbers_that_are_not_finite_are_errors():
    with pytest.raises(ValueError, match="no self-attention layer to add up"):
        PlaceMaps().matrix()
    (q, k), maps = layer((2, 2)), PlaceMaps()
    maps.add(q.fill_(torch.inf), k, HEADS, (2, 2))
    with pytest.raises(ValueError, match=r"self-attention is not finite .* such as bfloat16 or float32"):
        maps.matrix()
