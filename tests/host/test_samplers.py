"""Every stock sampler and scheduler, through the KSampler (Masked Latent) and through the patched model."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.masking import ImageMasking
from explainable_latents.nodes.host.sampling import MaskedLatent
from tests.host.toy_sampling import KEEP, REFERENCE, given, latent, masked_run

OWN_STEPS = ("dpm_fast", "dpm_adaptive")
# These remember earlier steps, and forget them at a manipulated step: the latent has just been changed.
MULTISTEP = (
    *("lms", "ipndm", "ipndm_v", "deis", "uni_pc", "uni_pc_bh2", "er_sde", "sa_solver", "sa_solver_pece", "heunpp2"),
    *("dpmpp_2m", "dpmpp_2m_cfg_pp", "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu"),
    *("dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "gradient_estimation", "gradient_estimation_cfg_pp"),
    *("res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral", "res_multistep_ancestral_cfg_pp"),
)
"""heunpp2 keeps no history, but it takes shorter steps near the end of what it is given."""


def stock_samplers() -> list[str]:
    import comfy.samplers

    return comfy.samplers.SAMPLER_NAMES


def schedulers() -> list[str]:
    import comfy.samplers

    return comfy.samplers.SCHEDULER_NAMES


ONE_STEP = [name for name in stock_samplers() if name not in (*OWN_STEPS, *MULTISTEP)]
WORKING = [name for name in stock_samplers() if name not in OWN_STEPS]


def patched_run(toy, masking, at: str, *args, **kwargs) -> Tensor:
    """The stock KSampler on a model with masked latents."""
    model = toy.model.clone()
    MaskedLatent(masking, latent(seed=4, size=(8, 8))["samples"], at, KEEP, REFERENCE).install(model)
    return toy.stock(*args, model=model, **kwargs)


@pytest.mark.parametrize("sampler", WORKING)
def test_every_sampler_with_every_scheduler(toy, sampler):
    """Half of the latent is replaced twice: both ways give the same, finite, and no wilder than the stock result."""
    half = torch.zeros(1, 8, 8)
    half[..., :4] = 1
    start, reference = latent(size=(8, 8)), latent(size=(8, 8), seed=4)
    steps = 8 if sampler.startswith("sa_solver") else 4  # it corrects each step at the next one, or overshoots
    for scheduler in schedulers():
        how = {"scheduler": scheduler, "steps": steps, "cfg": 1.0}
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


@pytest.mark.parametrize("sampler", ONE_STEP)
def test_a_mask_of_ones_is_the_stock_sampler_bit_for_bit(toy, sampler):
    start = latent(2)
    masked, masks, _ = masked_run(
        toy.model, toy.settings(start, sampler), given(1.0), start, "0, 2, 5-6", KEEP, REFERENCE
    )
    assert torch.equal(masked["samples"], toy.stock(start, sampler))
    assert masks.shape == (4, 128, 128)  # a given mask serves the whole batch


@pytest.mark.parametrize("sampler", MULTISTEP)
def test_samplers_with_a_memory_stay_close_under_a_mask_of_ones(toy, sampler):
    """As published: the last 35 of 50 steps, three of them manipulated. The limits hold for this start, not for any."""
    start = latent()
    how = {"scheduler": "normal", "steps": 35, "cfg": 3.0}
    masked, _, _ = masked_run(
        toy.model, toy.settings(start, sampler, **how), given(1.0), start, "5, 18, 28", KEEP, REFERENCE
    )
    stock = toy.stock(start, sampler, **how)
    difference = float((masked["samples"] - stock).norm() / stock.norm())
    assert 0 < difference < (0.1 if sampler.startswith("sa_solver") else 0.03)  # sa_solver remembers four steps


@pytest.mark.parametrize("sampler", WORKING)
def test_no_manipulated_step_is_the_stock_sampler_bit_for_bit(toy, sampler):
    start = latent()
    how = {"steps": 4, "cfg": 1.0}
    masked, masks, saliency = masked_run(
        toy.model, toy.settings(start, sampler, **how), toy.attention(), start, "", KEEP, REFERENCE
    )
    assert torch.equal(masked["samples"], toy.stock(start, sampler, **how))
    assert "names no step" in masks.message
    assert "no saliency" in saliency.message


def v_prediction(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return ModelSamplingDiscrete().patch(model, "v_prediction", False)[0]


def flow(model):
    from comfy_extras.nodes_model_advanced import ModelSamplingSD3

    return ModelSamplingSD3().patch(model, 3.0)[0]


@pytest.mark.parametrize("kind", [v_prediction, flow])
@pytest.mark.parametrize("sampler", ONE_STEP)
def test_other_predictions(toy, sampler, kind):
    """The toy network makes no picture when it is taken for a v or flow model, but the arithmetic is that of one."""
    start, reference = latent(), latent(seed=4)
    how = {"scheduler": "normal", "steps": 8, "cfg": 1.5}
    model = kind(toy.model)
    settings = toy.settings(start, sampler, **how)
    masked, _, _ = masked_run(model, settings, given(1.0), start, "0, 2, 4-5", KEEP, REFERENCE)
    stock = toy.stock(start, sampler, model=model, **how)
    assert stock.isfinite().all()
    assert torch.equal(masked["samples"], stock)
    last, _, _ = masked_run(model, settings, given(0.0), reference, "100%", KEEP, REFERENCE)
    torch.testing.assert_close(last["samples"], reference["samples"], atol=1e-6, rtol=0)


@pytest.mark.parametrize("sampler", OWN_STEPS)
def test_samplers_with_steps_of_their_own_are_refused(toy, sampler):
    with pytest.raises(ValueError, match=f"{sampler} chooses its own steps"):
        masked_run(toy.model, toy.settings(latent(), sampler), given(1.0), latent(), "3", KEEP, REFERENCE)
    with pytest.raises(ValueError, match=f"{sampler} chooses its own steps"):
        patched_run(toy, given(1.0, 1, 8, 8), "3", latent(size=(8, 8)), sampler)
