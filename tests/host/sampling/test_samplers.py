"""Every stock sampler and scheduler, through the KSampler (Masked Latent) and through the patched model."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.toy_sampling import KEEP, REFERENCE, given, latent, masked_run
from tests.host.unets import random_unet, sample

OWN_STEPS = ("dpm_fast", "dpm_adaptive")
# Predictor-correctors: they show the model a prediction and give no access to their state.
RESTARTED = ("uni_pc", "uni_pc_bh2", "sa_solver")


def stock_samplers() -> list[str]:
    import comfy.samplers

    return comfy.samplers.SAMPLER_NAMES


def schedulers() -> list[str]:
    import comfy.samplers

    return comfy.samplers.SCHEDULER_NAMES


WORKING = [name for name in stock_samplers() if name not in OWN_STEPS]
UNCUT = [name for name in WORKING if name not in RESTARTED]
# A scheduler for each sampler, all of them in turn.
SAMPLED = [(name, schedulers()[i % len(schedulers())]) for i, name in enumerate(WORKING)]
EVERY = [(name, scheduler) for name in WORKING for scheduler in schedulers() if (name, scheduler) not in SAMPLED]


def patched_run(toy, masking, at: str, *args, **kwargs) -> Tensor:
    """The stock KSampler on a model with masked latents."""
    model = toy.model.clone()
    MaskedLatent(masking, latent(seed=4, size=(8, 8))["samples"], at, KEEP, REFERENCE).install(model)
    return toy.stock(*args, model=model, **kwargs)


def difference(samples: Tensor, stock: Tensor) -> float:
    """Distance in shares of the stock result's length."""
    return float((samples - stock).norm() / stock.norm())


def half_replaced(toy, sampler: str, scheduler: str) -> None:
    """Half of the latent is replaced twice: both ways give the same, finite, and no wilder than the stock result."""
    half = torch.zeros(1, 8, 8)
    half[..., :4] = 1
    start, reference = latent(size=(8, 8)), latent(size=(8, 8), seed=4)
    how = {"scheduler": scheduler, "steps": 4, "cfg": 1.0}
    stock = toy.stock(start, sampler, **how)
    masked, _, _ = masked_run(
        toy.model, toy.settings(start, sampler, **how), ImageMasking(half), reference, "1, 3", KEEP, REFERENCE
    )
    assert torch.equal(masked["samples"], patched_run(toy, ImageMasking(half), "1, 3", start, sampler, **how))
    assert masked["samples"].shape == stock.shape
    assert masked["samples"].isfinite().all()
    assert not torch.equal(masked["samples"], stock)
    low, high = torch.cat([stock, reference["samples"]]).aminmax()
    room = 0.5 * (high - low)
    assert masked["samples"].min() > low - room
    assert masked["samples"].max() < high + room


@pytest.mark.parametrize(("sampler", "scheduler"), SAMPLED)
def test_every_sampler_and_every_scheduler(toy, sampler, scheduler):
    half_replaced(toy, sampler, scheduler)


@pytest.mark.matrix
@pytest.mark.parametrize(("sampler", "scheduler"), EVERY)
def test_every_sampler_with_every_scheduler(toy, sampler, scheduler):
    half_replaced(toy, sampler, scheduler)


# A sampler knows nothing of the network behind it: one resolution, attention only in the middle.
SMALLEST = {
    "model_channels": 32,
    "channel_mult": [1],
    "num_res_blocks": [1],
    "transformer_depth": [0],
    "transformer_depth_output": [0, 0],
    "num_heads": 4,
}


@pytest.fixture(scope="module")
def network(comfy):
    """A random network, which is cloned and not changed."""
    return random_unet(**SMALLEST)


@pytest.fixture(scope="module")
def stock_result(network) -> Callable[[str], Tensor]:
    """What a sampler makes of the network by itself."""
    return cache(lambda sampler: on_small_unet(network, sampler))


def on_small_unet(model, sampler: str, value: float | None = None, at: str = "") -> Tensor:
    """Six steps with a random network; with a mask of `value` everywhere at the steps `at`, if it is given."""
    model = model.clone()
    if value is not None:
        reference = latent(2, (8, 8), seed=4)["samples"]
        MaskedLatent(given(value, 1, 8, 8), reference, at, KEEP, REFERENCE).install(model)
    return sample(model, 6, batch=2, grid=(8, 8), sampler=sampler)


@pytest.mark.parametrize("sampler", UNCUT)
def test_a_mask_of_ones_is_the_stock_sampler_bit_for_bit(network, stock_result, sampler):
    """At the first and the last step and at adjacent ones; and nearly one is nearly the same, so it is not skipped."""
    stock = stock_result(sampler)
    assert torch.equal(on_small_unet(network, sampler, 1.0, "0, 2-3, 5"), stock)
    assert torch.equal(on_small_unet(network, sampler, 1.0, "0-6"), stock)
    assert 0 < difference(on_small_unet(network, sampler, 0.9999, "0, 2-3, 5"), stock) < 0.02


IN_TWELVE = {"scheduler": "normal", "steps": 12}


@pytest.fixture(scope="module")
def stock_in_twelve(toy) -> Callable[[str], Tensor]:
    """What a sampler makes of the toy checkpoint in twelve steps."""
    return cache(lambda sampler: toy.stock(latent(), sampler, **IN_TWELVE))


@pytest.mark.parametrize("sampler", RESTARTED)
@pytest.mark.parametrize("at", ["2, 4", "2-4", "0-11", "11"])
def test_samplers_that_keep_their_state_stay_close_under_a_mask_of_ones_and_say_so(toy, stock_in_twelve, sampler, at):
    """At most 15 % away from the stock result; the nearly done last step of uni_pc is denoised, too."""
    model = toy.model.clone()
    report = MaskedLatent(given(1.0), latent(seed=4)["samples"], at, KEEP, REFERENCE).install(model)
    out = toy.stock(latent(), sampler, model=model, **IN_TWELVE)
    stock = stock_in_twelve(sampler)
    assert difference(out, stock) < 0.15
    _, _, text = report.outputs(out)
    if torch.equal(out, stock):  # sa_solver corrects nothing at the last step: there its state is what it shows
        assert (sampler, at) == ("sa_solver", "11")
        assert "restarted" not in text
    else:
        steps = {"2-4": "2, 3, 4", "0-11": "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11"}.get(at, at)
        name = sampler.replace("uni_pc", "unipc")  # as the function is called
        assert f"{name} gives no access to its state, so it was restarted at step {steps} and has forgotten" in text
        assert ("Euler's method made it" in text) == (sampler.startswith("uni_pc") and at.endswith("11"))


@pytest.mark.matrix
@pytest.mark.parametrize("sampler", WORKING)
@pytest.mark.parametrize("at", ["2, 4", "2-4", "0-34", "34", "5, 18, 28"])
def test_every_sampler_under_a_mask_of_ones_as_published(toy, sampler, at):
    """The last 35 of 50 steps, as in the papers."""
    start, how = latent(), {"scheduler": "normal", "steps": 35, "cfg": 3.0}
    settings = toy.settings(start, sampler, **how)
    masked, _, _ = masked_run(toy.model, settings, given(1.0), start, at, KEEP, REFERENCE)
    away = difference(masked["samples"], toy.stock(start, sampler, **how))
    assert away < 0.15 if sampler in RESTARTED else away == 0


@pytest.mark.parametrize("sampler", WORKING)
def test_no_manipulated_step_is_the_stock_sampler_bit_for_bit(network, stock_result, sampler):
    assert torch.equal(on_small_unet(network, sampler, 0.0, ""), stock_result(sampler))


def test_a_run_without_a_manipulated_step_says_that_there_are_no_masks(toy):
    settings = toy.settings(latent(size=(8, 8)), "dpmpp_2m", steps=3)
    _, masks, saliency = masked_run(toy.model, settings, toy.attention(), latent(size=(8, 8)), "", KEEP, REFERENCE)
    assert "names no step" in masks.message
    assert "no saliency" in saliency.message


def v_prediction(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]


def flow(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return ModelSamplingSD3().patch(model, 3.0)[0]


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        pytest.param(sampler, kind, marks=() if (i + j) % 2 == 0 else pytest.mark.matrix)
        for i, sampler in enumerate(UNCUT)
        for j, kind in enumerate((v_prediction, flow))
    ],
)
def test_other_predictions(network, sampler, kind):
    """The network makes no picture when it is taken for a v or flow model, but the arithmetic is that of one.

    `make test` takes every sampler with one of the two, in turn.
    """
    model = kind(network)
    stock = on_small_unet(model, sampler)
    assert stock.isfinite().all()
    assert torch.equal(on_small_unet(model, sampler, 1.0, "0, 2-3, 5"), stock)
    torch.testing.assert_close(
        on_small_unet(model, sampler, 0.0, "100%"), latent(2, (8, 8), seed=4)["samples"], atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("sampler", OWN_STEPS)
def test_samplers_with_steps_of_their_own_are_refused(toy, sampler):
    with pytest.raises(ValueError, match=f"{sampler} chooses its own steps.*at step 3"):
        masked_run(toy.model, toy.settings(latent(), sampler), given(1.0), latent(), "3", KEEP, REFERENCE)
    with pytest.raises(ValueError, match=f"{sampler} chooses its own steps"):
        patched_run(toy, given(1.0, 1, 8, 8), "3", latent(size=(8, 8)), sampler)
