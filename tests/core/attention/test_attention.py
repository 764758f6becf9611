"""Aggregation of cross-attention, against numbers worked out by hand and an unchunked softmax."""

import math

import pytest
import torch

from explainable_latents.nodes.core.attention import probabilities
from explainable_latents.nodes.core.attention.aggregate import PlacedMaps, aggregate, compose, normalise, resize
from explainable_latents.nodes.core.attention.heads import by_head, joined
from explainable_latents.nodes.core.attention.log_sums import log_sums
from explainable_latents.nodes.core.attention.output_space import output_likeness
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


# Attention that text and picture share, and queries and keys by head.


def shared(heads=4, of_keys=4, d=8, tokens=6, places=10, batch=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(7)
    q = torch.randn(batch, heads, places, d, generator=generator).to(dtype)
    k = torch.randn(batch, of_keys, tokens + places, d, generator=generator).to(dtype)
    columns = torch.zeros(batch, tokens, 2)
    columns[:, 1, 0] = columns[:, 3:5, 1] = 1.0
    return q, k, columns


def whole_softmax(q, k, mask=None):
    q, k = q.double(), k.double().repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    return torch.softmax(scores if mask is None else scores + mask, dim=-1)


@pytest.mark.parametrize("of_keys", [4, 2, 1])
@pytest.mark.parametrize("text", [slice(0, 6), slice(10, 16), slice(3, 9)], ids=str)
def test_shares_of_an_attention_to_text_and_picture(text, of_keys):
    """Of all keys, by the kernel's sums and, with a mask, by whole rows; and of the text alone."""
    q, k, columns = shared(of_keys=of_keys)
    mask = torch.randn(10, 16, generator=torch.Generator().manual_seed(8))
    for each in (None, mask):
        p = whole_softmax(q, k, each)[..., text]
        of_all = (p @ columns.double().unsqueeze(1)).sum(1).permute(2, 0, 1)
        found = token_attention(q, k, 4, columns, mask=each, text=text)
        assert (found - of_all).abs().max() < 1e-6 * of_all.max()
        words = torch.ones(2, 6)
        of_text = ((p / p.sum(-1, keepdim=True)) @ columns.double().unsqueeze(1)).sum(1).permute(2, 0, 1)
        found = token_attention(q, k, 4, columns, words=words, mask=each, text=text)
        assert (found - of_text).abs().max() < 1e-6 * of_text.max()


def test_heads_beside_each_other_and_as_a_dimension_are_the_same():
    q, k, columns = shared(tokens=16, places=16)
    sets = torch.zeros(2, 32, 2)
    sets[:, :16] = columns
    beside = token_attention(joined(q, 4), joined(k, 4), 4, sets)
    assert torch.equal(beside, token_attention(q, k, 4, sets))
    assert torch.equal(by_head(joined(q, 4), 8), q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_log_sums_are_those_of_the_scores_or_there_are_none(dtype):
    """On the CPU the kernel is used for float32 only."""
    q, k, _ = shared(places=3000, dtype=dtype)
    found = log_sums(q, k, 4, None, None)
    assert (found is None) == (dtype != torch.float32)
    if found is not None:
        scores = q.double() @ k.double().transpose(-1, -2) * 8**-0.5
        assert (found - scores.logsumexp(-1)).abs().max() < 1e-5
    assert log_sums(q, k, 4, torch.zeros(1, 1, 1, 3006), None) is None


def test_the_likeness_of_outputs():
    """Places 1 and 2 of three are like the two words' mean by 2 and 5 more than place 0."""
    out = torch.tensor([[[1.0, 0.0], [3.0, 0.0], [9.0, 9.0], [0.0, 1.0], [1.0, 5.0], [2.5, -1.0]]])
    columns = torch.tensor([[[1.0], [1.0]]])
    found = output_likeness(out, columns, slice(0, 2), slice(3, 6))
    assert found.tolist() == [[[0.0, 2.0, 5.0]]]
