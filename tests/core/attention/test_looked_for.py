"""Words that are not among the keys, against a softmax over all keys in float64."""

import math

import pytest
import torch

from explainable_latents.nodes.core.attention import looked_for
from explainable_latents.nodes.core.attention.aggregate import aggregate, normalise
from explainable_latents.nodes.core.attention.looked_for import appended_attention, score_maps
from explainable_latents.nodes.core.attention.probabilities import token_attention, token_columns

HEADS = 3

# float32 sums of three heads, each at most 1, from scores of float32
CLOSE = 1e-5


@pytest.fixture
def qk():
    """Queries, the prompt's 77 keys, and three keys more: of a word of one token and of one of two."""
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in ((2, 35, 24), (2, 77, 24), (3, 24)))


def apart(t):
    return t.double().unflatten(-1, (HEADS, -1)).transpose(-2, -3)


def naive(q, k, added, count, mask=None):
    """Σ_h of the last `count` probabilities of a softmax over the prompt's keys and `added`: [B,Q] in float64."""
    keys = torch.cat([k, added.expand(len(k), -1, -1)], dim=1)
    scores = apart(q) @ apart(keys).transpose(-1, -2) / math.sqrt(q.shape[-1] / HEADS)
    if mask is not None:
        scores[..., : k.shape[1]] += mask.double()
    return torch.softmax(scores, dim=-1)[..., -count:].sum((-1, 1))


def test_two_keys_by_hand():
    q, k = torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2, 1)
    # e^log 6 = 6 beside two keys of e^0 = 1 for the first query; three keys of 1 for the second
    added = torch.tensor([[math.log(6.0)]])
    assert torch.allclose(appended_attention(q, k, 1, added, [1]), torch.tensor([[[0.75, 1 / 3]]]))


@pytest.mark.parametrize("at_once", [1, 4 * 80 * 3, 10**9])
def test_a_word_is_read_as_if_its_keys_came_after_the_prompts_without_the_other_words(qk, at_once, monkeypatch):
    monkeypatch.setattr(looked_for, "SUMMED_AT_ONCE", at_once)
    q, k, added = qk
    out = appended_attention(q, k, HEADS, added, [1, 2])
    assert out.dtype == torch.float32
    assert torch.allclose(out[0].double(), naive(q, k, added[:1], 1), atol=CLOSE)
    assert torch.allclose(out[1].double(), naive(q, k, added[1:], 2), atol=CLOSE)


def test_a_word_of_the_prompt_has_the_same_map_when_it_is_taken_out_and_looked_for(qk):
    q, k, _ = qk
    expected = token_attention(q, k[:1].expand(2, -1, -1), HEADS, token_columns([[5]], 77, 77).expand(2, -1, -1))
    without = torch.cat([k[:1, :5], k[:1, 6:]], dim=1).expand(2, -1, -1)
    found = appended_attention(q, without, HEADS, k[0, 5:6], [1])
    assert torch.allclose(found, expected, atol=CLOSE)


def test_its_share_of_the_prompts_words(qk):
    q, k, added = qk
    words = torch.zeros(2, 77)
    words[:, 1:9] = 1
    found = appended_attention(q, k, HEADS, added[:1], [1], words=words)
    assert torch.allclose(found[0].double(), naive(q, k[:, 1:9], added[:1], 1), atol=CLOSE)


@pytest.mark.parametrize("shape", [(35, 77), (2, 35, 77), (2, 1, 1, 77), (1, 3, 35, 77)])
def test_a_mask_is_of_the_prompts_keys(qk, shape):
    q, k, added = qk
    mask = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    full = mask.unsqueeze(1) if mask.ndim == 3 else mask
    found = appended_attention(q, k, HEADS, added[:1], [1], mask=mask)
    assert torch.allclose(found[0].double(), naive(q, k, added[:1], 1, full), atol=CLOSE)
    found = appended_attention(q, k, HEADS, added[:1], [1], mask=mask > 0)
    none = torch.zeros(full.shape).masked_fill(full <= 0, float("-inf"))
    assert torch.allclose(found[0].double(), naive(q, k, added[:1], 1, none), atol=CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_in_float32_and_scores_of_hundreds_do_not_overflow(qk, dtype):
    q, k, added = (40 * each for each in qk)
    q, k, added = q.to(dtype), k.to(dtype), added.to(dtype)
    found = appended_attention(q, k, HEADS, added, [1, 2])
    assert torch.allclose(found[1].double(), naive(q, k, added[1:], 2), atol=CLOSE)
    scores = score_maps(q, added[None, :2], HEADS)
    assert scores.amax() > 1000
    expected = raw_scores(q, added[:2])
    assert torch.allclose(scores.double(), expected - expected.amin(-1, keepdim=True), rtol=1e-5)


def raw_scores(q, keys):
    """Σ_h q k'/√d [S,B,Q] in float64, head by head."""
    found = torch.zeros(len(keys), *q.shape[:2], dtype=torch.float64)
    for head in range(HEADS):
        part = slice(head * 8, head * 8 + 8)
        found += torch.einsum("bqd,sd->sbq", q[..., part].double(), keys[:, part].double()) / math.sqrt(8)
    return found


def test_scores_are_summed_over_heads_and_stand_above_their_smallest(qk):
    q, _, added = qk
    found = score_maps(q, added[None], HEADS)
    expected = raw_scores(q, added)
    assert torch.allclose(found.double(), expected - expected.amin(-1, keepdim=True), atol=1e-5)
    assert torch.allclose(score_maps(q, added[None], HEADS, scale=1.0), found * math.sqrt(8), atol=1e-4)


def test_maps_of_scores_from_several_layers_are_those_of_the_added_scores(qk):
    """OVAM adds the layers' scores, then stretches each map from its smallest value."""
    layers = [normalise(torch.rand(3, 2, 4, 6)) for _ in range(2)]
    offset = torch.tensor([0.0, -3.0]).view(2, 1, 1)
    layers[1][2] += offset
    found = aggregate(layers, (4, 6), scores=1)
    plain = aggregate(layers, (4, 6))
    assert torch.equal(found[:2], plain[:2])
    summed = layers[0][2] + layers[1][2]
    above = summed - summed.amin((-2, -1), keepdim=True)
    assert torch.allclose(found[2], above / above.sum((-2, -1), keepdim=True), atol=1e-6)
    assert torch.equal(found[2].amin((-2, -1)), torch.zeros(2))
