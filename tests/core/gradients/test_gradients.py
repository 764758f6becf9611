"""Abs-Grad-SAM: the literal solver against autograd and captum, the structured one against both, on random layers."""

from __future__ import annotations

import math

import pytest
import torch
from captum.attr import LayerGradientXActivation

from explainable_latents.nodes.core.attention.probabilities import token_attention, token_probabilities
from explainable_latents.nodes.core.gradients.definition import (
    WordAttention,
    brute_force,
    distinct_tokens,
    polarised,
)
from explainable_latents.nodes.core.gradients.derivative import agrees_with_autograd, is_pointwise
from explainable_latents.nodes.core.gradients.structured import structured
from tests.core.gradients.last_layers import LastLayers, definition, relative_error

CASES = [
    ({"seed": 1}, [(1,)]),
    ({"seed": 2, "heads": 1, "width": 8}, [(0, 3)]),
    ({"seed": 3, "heads": 4, "width": 2}, [(1, 2, 3)]),
    ({"seed": 4, "groups": 1}, [(2,), (4, 5)]),
    ({"seed": 5, "groups": 16}, [(2,), (2, 3)]),
    ({"seed": 6, "batch": 2}, [(1,), (5,)]),
    ({"seed": 7, "batch": 3, "size": (2, 3)}, [(1, 4)]),
    ({"seed": 8, "size": (9, 14), "latent": 1}, [(3,)]),
    ({"seed": 9, "size": (1, 7)}, [(1,)]),
    ({"seed": 10, "size": (8, 2)}, [(1,), (2,), (3,)]),
    ({"seed": 11, "size": (1, 1)}, [(1,)]),
    ({"seed": 12, "channels": 32, "groups": 32}, [(6,)]),
    ({"seed": 13, "latent": 1, "groups": 1, "heads": 4}, [(1, 2), (3,)]),
    ({"seed": 14, "latent": 9, "size": (4, 4)}, [(1, 2)]),
    ({"seed": 15, "kernel": 1, "latent": 1, "groups": 2, "heads": 8, "width": 2, "batch": 2}, [(1,)]),
    ({"seed": 16, "kernel": 5}, [(1,)]),
    ({"seed": 17, "heads": 8, "width": 2, "groups": 1, "latent": 1, "tokens": 12}, [(1, 2, 3, 4)]),
    ({"seed": 18, "heads": 3, "width": 5, "channels": 21, "groups": 7}, [(1,)]),
    ({"seed": 19, "tokens": 77, "size": (3, 4)}, [(1, 76), (40,)]),
    ({"seed": 20, "batch": 2, "size": (7, 3), "heads": 4}, [(1, 2), (3,)]),
    ({"seed": 21, "heads": 10, "width": 2, "kernel": 1, "latent": 1, "groups": 2}, [(1, 2)]),
    ({"seed": 22, "channels": 8, "groups": 2, "size": (6, 6), "batch": 2}, [(0,), (0,)]),
]


@pytest.mark.parametrize("polarity", ["absolute", "positive"])
@pytest.mark.parametrize(("kind", "sets"), CASES)
def test_both_solvers_give_what_the_definition_says(kind, sets, polarity):
    layers = LastLayers(**kind)
    words, features = layers.words(sets)
    expected = definition(layers, sets, polarity)
    brute = brute_force(words, layers.predict(features), polarity)
    assert relative_error(brute, expected) <= 1e-4
    derivative = layers.feedforward().derivative(words)
    assert agrees_with_autograd(derivative, words, features)
    for known in (None, derivative):
        fast = structured(words, features, layers.head, polarity, derivative=known)
        assert expected.shape == brute.shape == fast.shape
        assert relative_error(fast, expected) <= 1e-4


@pytest.mark.parametrize("polarity", ["absolute", "positive"])
def test_the_product_by_blocks_is_the_whole_product(monkeypatch, polarity):
    layers = LastLayers(seed=36, batch=2)
    words, features = layers.words([(1, 2), (4,)])
    whole = structured(words, features, layers.head, polarity)
    monkeypatch.setattr("explainable_latents.nodes.core.gradients.structured.BLOCK_ON_CPU", 23)  # divides neither side
    torch.testing.assert_close(structured(words, features, layers.head, polarity), whole, rtol=1e-5, atol=0)


@pytest.mark.parametrize("b", [1, 2])
def test_the_closed_form_is_the_derivative_of_every_feature(b):
    layers = LastLayers(seed=34, batch=b, size=(3, 4))
    words, features = layers.words([(1, 4)])
    derivative = layers.feedforward().derivative(words)
    found = torch.stack([derivative.column(i) for i in range(4)], -1).unflatten(-1, (2, 2))  # [B,Q,M,H,N]
    seed = torch.randn(features.shape, generator=torch.Generator().manual_seed(1))
    together = derivative.pulled(seed.flatten(2).transpose(1, 2)).unflatten(-1, (2, 2))
    torch.testing.assert_close(together, torch.einsum("bqmhn,bmq->bqhn", found, seed.flatten(2)))
    for m in range(features.shape[1]):
        (gradient,) = torch.autograd.grad(features[:, m].sum(), words.change, retain_graph=True)
        torch.testing.assert_close(found[:, :, m], gradient.transpose(1, 2), atol=1e-5, rtol=1e-4)


def test_a_closed_form_of_other_layers_is_not_believed():
    layers = LastLayers(seed=35, size=(6, 6))
    words, features = layers.words([(1, 4)])
    derivative = layers.feedforward().derivative(words)
    assert agrees_with_autograd(derivative, words, features)
    one = torch.ones_like(features)
    one[:, 5, 2, 3] = 1.1
    for wrong in (
        1.01 * features,
        features.roll(1, -1),
        torch.nn.functional.avg_pool2d(features, 3, 1, 1),
        torch.nn.functional.avg_pool2d(features, 2),
        one * features,
        features - features.mean(),
    ):
        assert not agrees_with_autograd(derivative, words, wrong)


def test_one_pass_of_captum_gives_one_element():
    """captum's gradient times activation, its absolute value summed, is one element of the saliency."""
    layers = LastLayers(seed=23)
    words, features = layers.words([(1, 4)])
    scores = brute_force(words, layers.predict(features), "absolute")
    attribution = LayerGradientXActivation(layers, layers.P)
    for element in [(0, 0, 0), (1, 2, 3), (3, 4, 5)]:
        product = attribution.attribute(torch.zeros(1, requires_grad=True), target=element)
        assert float(scores[0, 0][element]) == pytest.approx(product[..., [1, 4]].abs().sum().item(), rel=1e-4)


@pytest.mark.parametrize("batch", [2, 5, 1000])
def test_elements_together_give_the_same_as_one_by_one(batch):
    layers = LastLayers(seed=24, batch=2)
    words, features = layers.words([(1,), (2, 3)])
    z = layers.predict(features)
    torch.testing.assert_close(brute_force(words, z, "absolute", batch=batch), brute_force(words, z, "absolute"))


def test_single_elements_can_be_asked_for():
    layers = LastLayers(seed=25)
    words, features = layers.words([(1,), (2, 3)])
    z = layers.predict(features)
    chosen = brute_force(words, z, "positive", elements=[0, 31, 119], batch=2)
    torch.testing.assert_close(chosen, brute_force(words, z, "positive").flatten(2)[..., [0, 31, 119]])


def test_dropping_the_groups_statistics_would_be_wrong():
    """The low-rank part matters: without it a tenth or more of the saliency is off, so the tests above see it."""
    layers = LastLayers(seed=26, size=(8, 8))
    words, features = layers.words([(1,)])
    variance, mean = torch.var_mean(features.detach().unflatten(1, (4, -1)), (2, 3, 4), correction=0, keepdim=True)
    normed = ((features.unflatten(1, (4, -1)) - mean) * (variance + 1e-5).rsqrt()).flatten(1, 2)
    head = layers.head
    frozen = torch.nn.functional.silu(normed * head.gamma.view(-1, 1, 1) + head.beta.view(-1, 1, 1))
    local = head.scale * torch.nn.functional.conv2d(frozen, head.weight, head.bias, padding=1)
    exact = structured(words, features, head, "absolute")
    assert float(((brute_force(words, local, "absolute") - exact).abs() / exact).mean()) > 0.1


def test_negative_and_positive_parts_add_up():
    layers = LastLayers(seed=27)
    words, features = layers.words([(1,)])
    absolute, positive = (structured(words, features, layers.head, p) for p in ("absolute", "positive"))
    negated = type(layers.head)(**{**vars(layers.head), "scale": -layers.head.scale})
    torch.testing.assert_close(positive + structured(words, features, negated, "positive"), absolute)


def test_subjects_add_their_tokens():
    layers = LastLayers(seed=28)
    one, two, both = (structured(*layers.words([s]), layers.head, "absolute") for s in ((1,), (2,), (1, 2)))
    torch.testing.assert_close(one + two, both)


def test_the_solvers_report_every_piece_of_work_and_can_be_cancelled_by_the_report():
    layers = LastLayers(seed=29, batch=2)
    words, features = layers.words([(1, 2)])
    for solve in (
        lambda progress: structured(words, features, layers.head, "absolute", progress),
        lambda progress: brute_force(words, layers.predict(features), "absolute", batch=7, progress=progress),
    ):
        seen = []
        solve(lambda done, total, seen=seen: seen.append((done, total)))
        assert [done for done, _ in seen] == sorted({done for done, _ in seen})
        assert seen[-1][0] == seen[-1][1] > 5

        def stop(done, total):
            if done > 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            solve(stop)


def test_the_product_of_one_token_can_be_cancelled_within_it(monkeypatch):
    """A large picture and a token of many heads: seconds to minutes, in blocks of milliseconds."""
    monkeypatch.setattr("explainable_latents.nodes.core.gradients.structured.BLOCK_ON_CPU", 16)
    layers = LastLayers(seed=33, size=(5, 6), heads=2)
    words, features = layers.words([(1,)])
    seen = []
    found = structured(words, features, layers.head, "absolute", lambda done, total: seen.append((done, total)))
    blocks = math.ceil(4 * 30 / 16) * math.ceil(2 * 30 / 16)
    passes = 2
    assert len(seen) == passes + blocks
    assert seen[-1] == ((passes + 1) * blocks, (passes + 1) * blocks)
    assert [done for done, _ in seen[-blocks:]] == list(range(passes * blocks + 1, (passes + 1) * blocks + 1))
    torch.testing.assert_close(found, brute_force(words, layers.predict(features), "absolute"))

    def stop(done, total):
        if done > passes * blocks + 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        structured(words, features, layers.head, "absolute", stop)


def test_a_layer_that_mixes_positions_is_recognised():
    layers = LastLayers(seed=30, size=(6, 6))
    words, features = layers.words([(1,)])
    assert is_pointwise(words, features)
    assert not is_pointwise(words, torch.nn.functional.avg_pool2d(features, 3, 1, 1))
    assert not is_pointwise(words, features - features.mean())
    assert not is_pointwise(words, torch.nn.functional.avg_pool2d(features, 2))


@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_probabilities_are_the_softmax_of_all_keys(mask, monkeypatch):
    monkeypatch.setattr("explainable_latents.nodes.core.attention.probabilities.KEPT_AT_ONCE", 200)
    layers = LastLayers(seed=31, batch=2)
    used = torch.tensor([1, 4])
    bias = torch.zeros(2, 1, 1, 7)
    bias[0, ..., 2] = -torch.inf
    given = {None: None, "bool": bias == 0, "float": bias}[mask]
    found = token_probabilities(layers.q, layers.k, 2, used, mask=given)
    expected = torch.softmax(layers.scores + (0 if mask is None else bias), -1)[..., used]
    torch.testing.assert_close(found, expected)


def test_probabilities_summed_over_heads_are_the_captured_attention():
    layers = LastLayers(seed=32)
    columns = torch.zeros(7, 2)
    columns[[1, 2], 0] = columns[2, 1] = 1
    used, membership = distinct_tokens(columns)
    p = token_probabilities(layers.q, layers.k, 2, used, scale=0.3)
    captured = token_attention(layers.q, layers.k, 2, columns.expand(1, -1, -1), scale=0.3)
    torch.testing.assert_close(torch.einsum("bhqn,ns->sbq", p, membership), captured)


def test_mistakes_are_told():
    layers = LastLayers(seed=33)
    words, features = layers.words([(1,)])
    with pytest.raises(ValueError, match="polarity 'both' is not one of: absolute, positive"):
        polarised(features, "both")
    with pytest.raises(ValueError, match="polarity 'both'"):
        structured(words, features, layers.head, "both")
    with pytest.raises(ValueError, match="30 query positions do not lie on the features' 5x5 grid"):
        structured(words, features[..., :5], layers.head, "absolute")
    with pytest.raises(ValueError, match=r"\[B,H,Q,N\]"):
        WordAttention(words.probabilities, words.change[..., :0], words.columns, words.values)
