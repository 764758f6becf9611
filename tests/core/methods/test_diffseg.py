"""DiffSeg's merging, against the published algorithm written out as plain loops in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from explainable_latents.nodes.core.methods import diffseg
from explainable_latents.nodes.core.methods.diffseg import (
    anchor_places,
    distances,
    gather,
    largest,
    means,
    merge,
    segment,
)
from tests.core.enlarging import enlarged

GRID, SIZE = (8, 8), (64, 64)
PLACES = math.prod(GRID)


def nothing(done, total):
    pass


def attention(seed=0, grid=GRID, kinds=5, noise=0.6):
    """Distributions [N,N] of some kinds, each place's own a little off its kind's, in float32."""
    generator = torch.Generator().manual_seed(seed)
    count = math.prod(grid)
    kind = torch.randn(kinds, count, generator=generator) * 1.5
    which = torch.randint(kinds, (count,), generator=generator)
    return torch.softmax(kind[which] + noise * torch.randn(count, count, generator=generator), dim=-1)


def apart(a, b):
    """Half of KL(a|b) and half of KL(b|a), term by term."""
    forth = sum(p * math.log(p / q) for p, q in zip(a, b, strict=True))
    back = sum(q * math.log(q / p) for p, q in zip(a, b, strict=True))
    return (forth + back) / 2


def published(rows, anchors, threshold):
    """The three rounds, as the authors' code goes about it, and how close any distance came to the threshold."""
    margins = []

    def close(one, other):
        value = apart(one, other)
        margins.append(abs(value - threshold))
        return value < threshold

    proposals = [np.mean([row for row in rows if close(rows[a], row)], axis=0) for a in anchors]
    for _ in range(2):
        matched, merged = set(), []
        for i, anchor in enumerate(proposals):
            if i in matched:
                continue
            members = [j for j, other in enumerate(proposals) if close(anchor, other)]
            matched.update([i, *members])
            merged.append(np.mean([proposals[j] for j in members], axis=0))
        proposals = merged
    return np.array(proposals), min(margins)


def test_distances_are_both_halves_of_the_divergence():
    a, b = attention(0)[:7], attention(1)[:9]
    expected = [[apart(p.tolist(), q.tolist()) for q in b.double()] for p in a.double()]
    # entropies near 4 in float32, of sums of 64 terms
    assert torch.allclose(distances(a, b).double(), torch.tensor(expected).double(), rtol=0, atol=1e-5)
    assert torch.allclose(distances(a, b), distances(b, a).T, rtol=0, atol=1e-5)


def test_a_share_of_zero_is_as_far_as_the_least_that_is_told_apart():
    a, b = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]])
    # log 2 for the first place, and half of 0.5 log(0.5 / 1e-12) more for the second; 0 log 0 is 0
    expected = (math.log(2) + 0.5 * math.log(0.5) + 0.5 * math.log(0.5 / 1e-12)) / 2
    assert float(distances(a, b)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("threshold", [0.1, 0.2, 0.4, 1.2])
@pytest.mark.parametrize("seed", range(3))
def test_proposals_and_labels_are_those_of_the_published_loops(seed, threshold):
    maps = attention(seed)
    places = anchor_places(GRID, 4)
    expected, margin = published(maps.double().numpy(), places.tolist(), threshold)
    assert margin > 1e-5, "float32 could decide otherwise: take another seed"
    found = gather(maps, places, threshold, nothing)
    for _ in range(2):
        found = merge(found, threshold)
    assert found.shape == expected.shape
    assert np.abs(found.numpy() - expected).max() < 1e-6
    values = enlarged(expected.reshape(-1, *GRID), SIZE)
    ordered = np.sort(values, axis=0)
    clear = np.ones(SIZE, bool) if len(values) == 1 else ordered[-1] - ordered[-2] > 1e-6
    labels = segment(maps, GRID, SIZE, threshold, 4, False, nothing).numpy()
    assert clear.mean() > 0.99
    assert np.array_equal(labels[clear], values.argmax(0)[clear])


def test_the_cases_above_are_no_trivial_ones():
    """From everything apart to the kinds that there are."""
    rows, places = attention().double().numpy(), anchor_places(GRID, 4)
    assert [len(published(rows, places, threshold)[0]) for threshold in (0.1, 0.2, 0.4)] == [16, 9, 5]


def test_a_threshold_of_zero_joins_nothing_and_a_large_one_everything():
    maps = attention()
    places = anchor_places(GRID, 4)
    apart = gather(maps, places, 0.0, nothing)
    assert torch.equal(merge(apart, 0.0), apart)
    assert torch.allclose(apart, maps[places], rtol=0, atol=1e-7)
    together = merge(gather(maps, places, 1e6, nothing), 1e6)
    assert together.shape == (1, PLACES)
    assert torch.allclose(together[0], maps.mean(0), rtol=0, atol=1e-6)
    assert segment(maps, GRID, SIZE, 1e6, 4, False, nothing).unique().tolist() == [0]


def test_attention_that_is_the_same_everywhere_is_one_region():
    alike = torch.full((PLACES, PLACES), 1 / PLACES)
    assert segment(alike, GRID, SIZE, 0.01, 8, False, nothing).unique().tolist() == [0]


def test_places_that_attend_to_their_own_half_are_two_halves():
    left = torch.zeros(8, 8)
    left[:, :4] = 1 / 32
    rows = torch.where(left.bool().view(-1, 1), left.flatten(), left.fliplr().flatten())
    labels = segment(rows, GRID, SIZE, 0.9, 4, False, nothing)
    assert torch.equal(labels[:, :32], torch.zeros(64, 32, dtype=torch.int64))
    assert torch.equal(labels[:, 32:], torch.ones(64, 32, dtype=torch.int64))


def test_one_anchor_is_one_region():
    assert segment(attention(), GRID, SIZE, 0.1, 1, False, nothing).unique().tolist() == [0]


def test_turning_the_picture_turns_its_regions():
    """The places in reversed order: the same regions, with other numbers."""
    maps = attention(3)
    turned = maps.flip(0, 1)
    one, other = (segment(each, GRID, SIZE, 0.6, 8, False, nothing) for each in (maps, turned))
    other = other.flip(0, 1)
    pairs = torch.stack([one.flatten(), other.flatten()], 1).unique(dim=0)
    assert len(one.unique()) > 2
    assert len(pairs) == len(one.unique()) == len(other.unique())


def test_equal_proposals_go_to_the_first():
    proposal = torch.rand(1, PLACES, generator=torch.Generator().manual_seed(0))
    assert not largest(proposal.repeat(3, 1), GRID, SIZE).any()


def test_what_is_done_in_blocks_does_not_depend_on_their_size(monkeypatch):
    maps, places = attention(2), anchor_places(GRID, 8)
    whole = gather(maps, places, 0.6, nothing)
    reports = []
    monkeypatch.setattr(diffseg, "PLACES", 9)
    blocks = gather(maps, places, 0.6, lambda *report: reports.append(report))
    assert torch.allclose(blocks, whole, rtol=0, atol=1e-6)
    assert reports == [(min(9 * i, 64), 64) for i in range(1, 9)]


@pytest.mark.parametrize(
    ("grid", "anchors", "rows", "columns"),
    [
        ((64, 64), 16, range(1, 62, 4), range(1, 62, 4)),
        ((16, 16), 16, range(16), range(16)),
        ((16, 16), 4, range(0, 16, 5), range(0, 16, 5)),
        ((48, 64), 16, range(1, 46, 4), range(1, 62, 4)),
        ((8, 8), 64, range(8), range(8)),
        ((5, 9), 1, [2], [4]),
        ((4, 64), 4, [1], range(0, 64, 21)),
    ],
)
def test_anchors_stand_where_the_published_code_has_them(grid, anchors, rows, columns):
    """16 of 64: 1, 5 ... 61; of other sides by the same rule."""
    assert anchor_places(grid, anchors).tolist() == [y * grid[1] + x for y in rows for x in columns]


@pytest.mark.parametrize("seed", range(3))
def test_k_means_is_that_of_scipy(seed):
    maps = attention(seed)
    centres = merge(gather(maps, anchor_places(GRID, 4), 0.5, nothing), 0.5)
    assert len(centres) > 2
    found = means(maps, centres, nothing)
    expected, labels = kmeans2(maps.double().numpy(), centres.double().numpy(), minit="matrix", iter=300)
    assert np.abs(found.numpy() - expected[np.unique(labels)]).max() < 1e-6


def test_a_centre_without_rows_is_left_out():
    maps = attention()
    far = torch.zeros(1, PLACES)
    far[0, 0] = 1.0
    found = means(maps, torch.cat([maps.mean(0, keepdim=True), far]), nothing)
    torch.testing.assert_close(found, maps.mean(0, keepdim=True), atol=1e-7, rtol=1e-5)


@pytest.mark.parametrize("threshold", [-0.1, math.nan])
def test_a_threshold_below_zero_is_named(threshold):
    with pytest.raises(ValueError, match=f"threshold {threshold} is negative"):
        segment(attention(), GRID, SIZE, threshold, 4, False, nothing)


def test_no_anchor_is_named():
    with pytest.raises(ValueError, match="anchors 0 must be at least 1"):
        segment(attention(), GRID, SIZE, 0.9, 0, False, nothing)


def test_progress_rises_to_the_end_and_may_cancel():
    class CancelledError(Exception):
        pass

    def cancel(done, total):
        raise CancelledError

    reports = []
    segment(attention(), GRID, SIZE, 0.5, 8, True, lambda done, total: reports.append(done / total))
    assert reports == sorted(reports)
    assert reports[-1] == 1
    with pytest.raises(CancelledError):
        segment(attention(), GRID, SIZE, 0.5, 8, True, cancel)
