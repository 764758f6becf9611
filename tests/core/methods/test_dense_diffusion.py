"""Modulated attention in its fused form, against the paper's equations written down in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.methods.dense_diffusion import (
    FLATTENED,
    DenseDiffusion,
    Segments,
    falling,
    modulated_attention,
    score_range,
)
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone, exchanged

GRID, HEADS, WIDTH = (7, 5), 3, 10
PLACES = GRID[0] * GRID[1]
STRENGTH = 0.8


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def halves() -> torch.Tensor:
    """A segment at the left and one at the right, a column between them that is in neither."""
    inside = torch.zeros(2, *GRID, dtype=torch.bool)
    inside[0, :, :2] = inside[1, 2:, 3:] = True
    return inside


def overlapping() -> torch.Tensor:
    """A third one that lies in both, and one that covers another."""
    inside = torch.zeros(4, *GRID, dtype=torch.bool)
    inside[:2] = halves()
    inside[2, 3:5] = inside[3, 3] = True
    return inside


COLUMNS = torch.zeros(11, 4)
for token, segment in ((2, 0), (3, 0), (5, 1), (6, 2), (9, 3)):
    COLUMNS[token, segment] = 1


def as_published(q, k, v, inside, columns, strength, method) -> torch.Tensor:
    """The lines of the authors' code, for disjoint segments; where they overlap, R is 1 for what shares any of them."""
    q, k, v = (x.double().unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
    s = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5
    m = inside.flatten(1).double()
    same = (m[:, :, None] * m[:, None, :]).sum(0) > 0
    size = 1 - method.size * same.double().sum(1, keepdim=True) / len(same)
    belongs = same if columns is None else torch.einsum("sq,ts->qt", m, columns[:, : len(m)].double()) > 0
    high, low = s.max(-1, keepdim=True)[0], s.min(-1, keepdim=True)[0]
    c = strength * size
    if method.elsewhere != FLATTENED:
        c = c * m.any(0)[:, None]
    s = s + belongs * c * (high - s) - ~belongs * c * (s - low)
    return (s.softmax(-1) @ v).transpose(1, 2).flatten(2)


def fused(q, k, v, inside, columns, strength, method, attend=None, scale=None) -> torch.Tensor:
    segments = Segments.of(inside)
    shared = segments.places if columns is None else segments.tokens(columns[:, : len(inside)])

    def plain(q, k, v):
        q, k, v = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k, v))
        assert q.shape[-1] % 8 == 0
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)

    return modulated_attention(
        q,
        k,
        v,
        attend=attend or plain,
        heads=HEADS,
        amounts=segments.amounts(strength, method),
        members=segments.members,
        shared=shared,
        scale=scale,
    )


CLOSE = {torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize("kind", ["cross", "self"])
@pytest.mark.parametrize("inside", [halves(), overlapping()], ids=["apart", "overlapping"])
@pytest.mark.parametrize("method", [DenseDiffusion(), DenseDiffusion(size=0.3, elsewhere=FLATTENED)], ids=str)
def test_the_fused_form_is_the_published_one(dtype, kind, inside, method):
    tokens = len(COLUMNS) if kind == "cross" else PLACES
    q = 3 * drawn(3, PLACES, HEADS * WIDTH).to(dtype)
    k, v = (drawn(3, tokens, HEADS * WIDTH, seed=seed).to(dtype) for seed in (1, 2))
    columns = COLUMNS if kind == "cross" else None
    expected = as_published(q, k, v, inside, columns, STRENGTH, method)
    found = fused(q, k, v, inside, columns, STRENGTH, method)
    assert found.dtype == dtype
    assert found.shape == q.shape
    assert (found.double() - expected).abs().max() < CLOSE[dtype] * expected.abs().max()
    assert (fused(q, k, v, inside, columns, 0.0, method).double() - expected).abs().max() > 0.2


def test_a_scale_of_the_network_s_own():
    q, k, v = (drawn(2, PLACES, HEADS * WIDTH, seed=seed) for seed in (3, 4, 5))
    usual = fused(q, k, v, halves(), None, STRENGTH, DenseDiffusion())
    found = fused(q / 2, k, v, halves(), None, STRENGTH, DenseDiffusion(), scale=2 * WIDTH**-0.5)
    torch.testing.assert_close(found, usual, rtol=1e-4, atol=1e-5)


def test_the_range_of_scores_is_that_of_all_scores_however_few_are_made_at_once():
    """4.8 million scores: not at once."""
    q, k = drawn(2, 1000, HEADS * WIDTH), drawn(2, 800, HEADS * WIDTH, seed=1)
    by_head = (x.unflatten(-1, (HEADS, -1)).transpose(1, 2) for x in (q, k))
    s = torch.einsum("bhqd,bhkd->bhqk", *by_head) * WIDTH**-0.5
    torch.testing.assert_close(score_range(q, k, HEADS), s.amax(-1) - s.amin(-1))


def test_places_that_lie_in_the_same_segments_are_one_group():
    segments = Segments.of(overlapping())
    assert segments.of_group.shape == (8, 4)
    assert torch.equal(segments.members.sum(1), overlapping().flatten(1).any(0).long())
    for place, members in enumerate(segments.members):
        if members.any():
            assert torch.equal(segments.of_group[members][0], overlapping().flatten(1)[:, place])


def test_what_a_large_part_loses():
    """The left one has 14 of 35 places, so that 40 % of the strength are left out; the middle has none of it."""
    amounts = Segments.of(halves()).amounts(0.5, DenseDiffusion()).view(GRID)
    assert torch.allclose(amounts[:, :2], torch.tensor(0.5 * 0.6))
    assert torch.allclose(amounts[2:, 3:], torch.tensor(0.5 * (1 - 10 / 35)))
    assert not amounts[:, 2].any()
    flattened = Segments.of(halves()).amounts(0.5, DenseDiffusion(size=0, elsewhere=FLATTENED))
    assert (flattened == 0.5).all()


def test_no_place_at_all():
    segments = Segments.of(torch.zeros(2, *GRID, dtype=torch.bool))
    assert segments.members.shape == (PLACES, 0)
    assert not segments.amounts(1.0, DenseDiffusion()).any()


def test_the_strength_falls_as_published():
    assert [falling(t) for t in (1000, 500, 0, -1)] == [1.0, 0.5**5, 0.0, 0.0]


def test_a_mask_is_an_error():
    q = drawn(1, PLACES, HEADS * WIDTH)
    with pytest.raises(ValueError, match="scores that a mask was added to"):
        modulated_attention(
            q, q, q, torch.zeros(PLACES, PLACES), attend=None, heads=HEADS, amounts=q, members=q, shared=q
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross": -0.1}, "cross_strength is -0.1, but it must lie between 0"),
        ({"own": 2.1}, "self_strength is 2.1"),
        ({"size": 1.1}, r"size_regularisation is 1.1, but it must lie between 0 \(off\) and 1"),
        ({"cross": float("nan")}, "cross_strength is nan"),
        ({"elsewhere": "nowhere"}, "elsewhere"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        DenseDiffusion(**options)
    with pytest.raises(ValueError, match="no part of a run"):
        Window(0, 1.1)


def test_rows_are_exchanged_and_no_others():
    context = drawn(2, 10, 6)
    phrase = PhraseAlone("red car", (2, 3), drawn(2, 6, seed=1))
    found = exchanged(context, [phrase])
    assert torch.equal(found[:, 2:4], phrase.alone.expand(2, 2, 6))
    assert torch.equal(found[:, [0, 1, *range(4, 10)]], context[:, [0, 1, *range(4, 10)]])
