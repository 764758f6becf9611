"""Aggregation of cross-attention, against numbers worked out by hand and an unchunked softmax."""

import math

import pytest
import torch

from explainable_latents.nodes.core.attention import probabilities
from explainable_latents.nodes.core.attention.aggregate import PlacedMaps, aggregate, compose, normalise, resize
from explainable_latents.nodes.core.attention.probabilities import token_attention, token_columns


def naive(q, k, heads, mask=None):
    """P [B,H,Q,T] in float64, in one piece."""
    b, _, inner = q.shape
    q, k = (t.double().reshape(b, -1, heads, inner // heads).transpose(1, 2) for t in (q, k))
    scores = q @ k.transpose(-1, -2) / math.sqrt(inner // heads)
    return torch.softmax(scores if mask is None else scores + mask, dim=-1)


@pytest.fixture
def qk():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 35, 24, generator=generator), torch.randn(2, 154, 24, generator=generator)


def columns(batch, length, *sets):
    return token_columns(sets, length, length).expand(batch, -1, -1)


def test_two_queries_two_tokens_by_hand():
    q = torch.tensor([[[1.0], [0.0]]])
    k = torch.tensor([[[math.log(3.0)], [0.0]]])
    # softmax(log 3, 0) = (3/4, 1/4) for the first query, (1/2, 1/2) for the second
    out = token_attention(q, k, 1, columns(1, 2, [0], [1], [0, 1]))
    assert torch.allclose(out[:, 0], torch.tensor([[0.75, 0.5], [0.25, 0.5], [1.0, 1.0]]))


@pytest.mark.parametrize("chunk", [1, 4 * 154 * 3, 10**9])
def test_chunks_do_not_change_the_sum_over_tokens_and_heads(qk, chunk, monkeypatch):
    monkeypatch.setattr(probabilities, "SUMMED_AT_ONCE", chunk)
    out = token_attention(*qk, 3, columns(2, 154, [2], [5, 80]))
    p = naive(*qk, 3).sum(dim=1)
    assert out.dtype == torch.float32
    assert torch.allclose(out[0].double(), p[..., 2], atol=1e-6)
    assert torch.allclose(out[1].double(), p[..., 5] + p[..., 80], atol=1e-6)


def test_share_of_the_prompts_words_is_taken_in_every_head(qk):
    words = torch.zeros(2, 154)
    words[:, 1:9] = 1
    out = token_attention(*qk, 3, columns(2, 154, [2], range(1, 9)), words=words)
    p = naive(*qk, 3)
    assert torch.allclose(out[0].double(), (p[..., 2] / p[..., 1:9].sum(-1)).sum(1), atol=1e-5)
    assert torch.allclose(out[1], torch.full_like(out[1], 3.0))


@pytest.mark.parametrize("shape", [(35, 154), (2, 35, 154), (2, 1, 1, 154), (1, 3, 35, 154)])
def test_masks_are_added_and_boolean_ones_exclude(qk, shape):
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    full = mask.unsqueeze(1) if mask.ndim == 3 else mask
    out = token_attention(*qk, 3, columns(2, 154, [2]), mask=mask)
    assert torch.allclose(out[0].double(), naive(*qk, 3, full)[..., 2].sum(1), atol=1e-6)
    out = token_attention(*qk, 3, columns(2, 154, [2]), mask=mask > 0)
    excluded = torch.zeros(full.shape, dtype=torch.float64).masked_fill(full <= 0, float("-inf"))
    assert torch.allclose(out[0].double(), naive(*qk, 3, excluded)[..., 2].sum(1), atol=1e-6)


def test_scale_replaces_the_usual_one(qk):
    q, k = qk
    plain = token_attention(q * 2, k, 3, columns(2, 154, [2]))
    assert torch.allclose(token_attention(q, k, 3, columns(2, 154, [2]), scale=2 / math.sqrt(8)), plain, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_inputs_are_read_in_float32(qk, dtype):
    q, k = (t.to(dtype) for t in qk)
    out = token_attention(q, k, 3, columns(2, 154, [2]))
    assert torch.allclose(out[0].double(), naive(q, k, 3)[..., 2].sum(1), atol=1e-6)


def test_columns_repeat_with_the_context_and_refuse_foreign_positions():
    repeated = token_columns([[0], [2, 1]], 6, 3)
    assert repeated.tolist() == [[1, 0], [0, 1], [0, 1]] * 2
    with pytest.raises(ValueError, match=r"\[77\] lie outside the conditioning's 77 tokens"):
        token_columns([[3], [77]], 77, 77)
    with pytest.raises(ValueError, match="100 tokens is not a repetition of the prompt's 77"):
        token_columns([[3]], 100, 77)


def test_aggregate_by_hand():
    fine = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    coarse = torch.tensor([[[[2.0]]]])
    assert torch.allclose(aggregate([fine, coarse], (2, 2)), torch.tensor([[[[3.0, 4.0], [5.0, 6.0]]]]) / 18)


def test_nearest_takes_the_covering_cell_and_bilinear_keeps_a_ramp():
    ramp = torch.arange(4.0).reshape(1, 1, 1, 4)
    assert resize(ramp, (1, 8)).flatten().tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert resize(ramp, (1, 8), "bilinear").flatten().tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    with pytest.raises(ValueError, match="'area' is not one of: nearest, bilinear"):
        resize(ramp, (1, 8), "area")


def test_a_map_of_zeros_stays_zero_and_others_sum_to_one():
    maps = normalise(torch.stack([torch.zeros(1, 2, 2), torch.full((1, 2, 2), 3.0)]))
    assert maps[0].tolist() == [[[0, 0], [0, 0]]]
    assert maps[1].tolist() == [[[0.25, 0.25], [0.25, 0.25]]]


def test_no_layer_is_an_error():
    with pytest.raises(ValueError, match="no cross-attention layer"):
        aggregate([], (2, 2))


def test_areas_lie_at_their_place_and_overlaps_are_weighted_means():
    left = PlacedMaps(torch.full((1, 1, 2, 2), 1.0), (0, 0), 1.0)
    right = PlacedMaps(torch.full((1, 1, 2, 2), 4.0), (0, 1), 2.0)
    assert compose([left, right], (2, 4)).tolist() == [[[[1, 3, 4, 0], [1, 3, 4, 0]]]]


def test_a_mask_weighs_each_place_and_each_latent():
    mask = torch.tensor([[[1.0, 0.0]], [[0.5, 1.0]]])
    one = PlacedMaps(torch.full((1, 2, 1, 2), 2.0), (0, 0), mask)
    other = PlacedMaps(torch.full((1, 2, 1, 2), 8.0), (0, 0), 0.5)
    assert compose([one, other], (1, 2)).tolist() == [[[[4, 8]], [[5, 4]]]]
