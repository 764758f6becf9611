"""Gradients that pass half precision: neither lost where they are small nor infinite where they are large."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.gradients.loss_scale import TRIES, LossScale
from tests.core.gradients.last_layers import LastLayers


def through_half(x: Tensor, factor: float) -> Tensor:
    """`factor` times x, whose gradient is a float16 number before it is multiplied by `factor`."""
    return x.half().float() * factor


def test_a_gradient_below_the_smallest_number_of_float16_is_found():
    x = torch.ones(3, requires_grad=True)
    (gradient,) = LossScale().gradients(through_half(x, 2.0**-30).sum(), [x])
    assert gradient.tolist() == [2.0**-30] * 3
    (plain,) = torch.autograd.grad(through_half(x, 2.0**-30).sum(), x)
    assert not plain.any()


def test_the_power_is_larger_for_a_flat_loss_and_smaller_for_a_sum_of_many_terms():
    """As long a vector at the model's output; 0.03 counts as 2^-6, 1 as 2^0."""

    def first_power(slope: float = 1.0, terms: int = 1) -> float:
        x, seen = torch.ones(1, requires_grad=True), []
        y = 1 * x
        y.register_hook(lambda gradient: seen.append(float(gradient)))
        LossScale(slope).gradients(y, [x], terms=terms)
        return seen[0]

    assert first_power() / first_power(terms=4096) == 64
    assert first_power(slope=0.03) / first_power() == 64
    assert first_power(slope=-0.03) == first_power(slope=0.03)


def test_what_overflows_is_halved_until_it_fits_and_stays_so_for_later_passes():
    x, passes = torch.ones(1, requires_grad=True), []
    y = through_half(x, 8.0)
    y.register_hook(lambda gradient: passes.append(float(gradient)))
    scale = LossScale()
    for _ in range(2):
        assert scale.gradients(y, [x])[0].tolist() == [8.0]
    assert [a / b for a, b in pairwise(passes)] == [2.0] * (len(passes) - 2) + [1.0]
    assert passes[-1] * 8 == 2.0**15  # the largest power of two in float16


def test_gradients_that_stay_infinite_are_an_error_that_says_whose_code_they_pass():
    x, passes = torch.ones(1, requires_grad=True), []
    y = x / 0.0
    y.register_hook(lambda gradient: passes.append(float(gradient)))
    scale = LossScale()
    scale.passed += ["first.attention of one", "second.attention of another", "first.attention of one"]
    named = r"what first\.attention of one and second\.attention of another computes\. Connect the model without"
    with pytest.raises(ValueError, match=named):
        scale.gradients(y, [x])
    assert len(passes) == TRIES
    with pytest.raises(ValueError, match=r"were tried\. Connect the model without"):
        LossScale().gradients(y, [x])


@pytest.mark.parametrize("batched", [False, True])
def test_in_float32_every_bit_is_that_of_plain_autograd(batched):
    words, features = (layers := LastLayers(seed=31)).words([(1,), (2, 3)])
    z = layers.predict(features)
    seed = torch.randn(*[3] * batched, *z.shape, generator=torch.Generator().manual_seed(0))
    (plain,) = torch.autograd.grad(z, words.change, seed, retain_graph=True, is_grads_batched=batched)
    (found,) = LossScale(0.03).gradients(z, [words.change], seed, batched=batched, terms=z.numel())
    assert torch.equal(found, plain)


class InHalf(torch.autograd.Function):
    """The identity, whose gradient passes float16."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return gradient.half().float()


def gradient_of(factors: Tensor, scale: LossScale, counted: list[int]) -> Tensor:
    """Of sum_r factor_r · Σ x_r by x [R,3], through float16."""
    x = torch.ones(len(factors), 3, requires_grad=True)
    return scale.of_rows((InHalf.apply(x) * factors.unsqueeze(1)).sum(), x, counted)


@pytest.mark.parametrize("size", [1e-11, 1e-7, 1.0, 1e3])
def test_small_and_large_gradients_are_right_to_the_digits_of_float16(size):
    factors = torch.tensor([size, 0.3 * size])
    found = gradient_of(factors, LossScale(), [0, 1])
    # the smallest power at which not all vanish may leave the smaller ones few digits
    tolerance = 1e-3 if size > 1e-9 else 0.5
    torch.testing.assert_close(found, factors.unsqueeze(1).expand(-1, 3), rtol=tolerance, atol=0)


def test_a_power_that_was_found_is_tried_first_next_time():
    scale = LossScale()
    large = torch.tensor([1e3])
    assert torch.equal(gradient_of(large, scale, [0]), large.half().float().expand(1, 3))
    # the larger power would keep the digits of this one, but is no longer tried
    assert float(gradient_of(torch.tensor([1e-9]), scale, [0])[0, 0]) == pytest.approx(1e-9, rel=0.5)


def test_a_row_that_is_not_finite_does_not_count():
    factors = torch.tensor([torch.nan, 2.0])
    found = gradient_of(factors, LossScale(), [1])
    assert found[0].isnan().all()
    assert torch.equal(found[1], torch.full((3,), 2.0))


def test_where_no_power_helps_the_rest_is_still_there():
    factors = torch.tensor([torch.inf, 2.0])
    found = gradient_of(factors, LossScale(), [0, 1])
    assert not found[0].isfinite().any()
    assert torch.equal(found[1], torch.full((3,), 2.0))
    assert not gradient_of(torch.zeros(2), LossScale(), [0, 1]).any()
    assert not gradient_of(torch.zeros(2), LossScale(), []).any()
