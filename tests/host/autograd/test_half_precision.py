"""Another node's attention that computes in float16: the maps of float32, up to float16's own rounding."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.host.autograd.test_gradients import saliency
from tests.host.autograd.test_gradients_through_attention import AGGREGATED, EXACT, GRID, overridden, spelled_out
from tests.host.unets import noise, random_unet

# Of q, k, v and the probabilities, to three digits. Measured below: 0.0015 to 0.0027; with the loss itself 0.0018 and
# 0.0026 where gradients are as usual (level 0.5, 1 times the weights), else 0.03 to 0.30.
ROUNDING = 0.01


def in_float16(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    """As a node does whose kernel knows nothing else."""
    return spelled_out(*(x.half() for x in (q, k, v)), heads).float()


class InLargeUnits(torch.autograd.Function):
    """A kernel that keeps gradients in float16, 2^15 times as large as they are."""

    @staticmethod
    def forward(x):
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, gradient):
        return (gradient * 2.0**15).half().float() * 2.0**-15


def in_large_units(q: Tensor, k: Tensor, v: Tensor, heads: int) -> Tensor:
    return InLargeUnits.apply(spelled_out(q, k, v, heads))


def unet(times: float):
    """A network whose last weights are `times` the usual ones: so are all its gradients."""
    model = random_unet("SD15", seed=12)
    weights = model.model.diffusion_model.state_dict()
    weights["out.2.weight"] = weights["out.2.weight"] * times
    return random_unet("SD15", weights=weights)


def error(model, attention, **how) -> float:
    """How far the maps with another attention are from those with the model's own, as a share of these."""
    plain, found = (saliency(m, start=noise(1, GRID), **how).maps for m in (model, overridden(model, attention)))
    return float((found - plain).abs().sum() / plain.sum())


@pytest.mark.parametrize("how", [EXACT, AGGREGATED], ids=["exact", "aggregated"])
@pytest.mark.parametrize(("level", "times"), [(0.5, 1.0), (0.001, 1e-2), (0.5, 1e-4), (0.001, 1e-4)])
def test_small_gradients_pass_an_attention_in_float16(comfy, how, level, times):
    assert error(unet(times), in_float16, level=level, **how) <= ROUNDING


@pytest.mark.parametrize("how", [EXACT, AGGREGATED], ids=["exact", "aggregated"])
def test_gradients_that_overflow_in_another_nodes_attention_are_taken_of_a_smaller_loss(comfy, how):
    """The first powers give infinite gradients here. Only gradients are rounded, to three digits: 9e-5 measured."""
    assert error(unet(1.0), in_large_units, **how) <= 1e-3


@pytest.mark.parametrize("how", [EXACT, AGGREGATED], ids=["exact", "aggregated"])
def test_gradients_that_overflow_however_small_the_loss_are_refused_by_the_nodes_name(comfy, how):
    name = r"overridden\.override of tests\.host\.autograd\.\w+"
    with pytest.raises(ValueError, match=rf"not finite.* They pass what {name} computes\. Connect the model without"):
        error(unet(1e5), in_large_units, **how)
