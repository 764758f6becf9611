"""Sampler functions of other packs and stock ones with options: how their state is replaced is found by trying them."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.toy_sampling import KEEP, REFERENCE, given, latent
from tests.host.unets import conditioning, random_unet

STEPS = 6


def run(model, function, options=None) -> Tensor:
    """Sample with a sampler function, as the host's nodes for samplers of other packs do."""
    import comfy.sample
    import comfy.samplers

    sampler = comfy.samplers.KSAMPLER(function, extra_options=options or {})
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)
    start = latent(size=(8, 8))["samples"]
    noise = comfy.sample.prepare_noise(start, 7)
    torch.manual_seed(3)  # some samplers draw from the global generator
    return comfy.sample.sample_custom(
        model, noise, 2.0, sampler, sigmas, conditioning(1), conditioning(2), start, seed=7, disable_pbar=True
    )


def replaced(model, masking, at, function, options=None):
    """The same with masked latents, and what the report says."""
    copy = model.clone()
    report = MaskedLatent(masking, latent(size=(8, 8), seed=4)["samples"], at, KEEP, REFERENCE).install(copy)
    out = run(copy, function, options)
    return out, report.outputs(out)[2]


def stock(name: str):
    import comfy.samplers

    return comfy.samplers.sampler_object(name).sampler_function


def midpoint_told_afterwards(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Two calls per step, the second at the next level; the callback comes at the end of the step."""
    ones = x.new_ones(x.shape[0])
    for i in range(len(sigmas) - 1):
        first = model(x, sigmas[i] * ones, **extra_args)
        slope = (x - first) / sigmas[i]
        ahead = x + slope * (sigmas[i + 1] - sigmas[i])
        if sigmas[i + 1] > 0:
            slope = (slope + (ahead - model(ahead, sigmas[i + 1] * ones, **extra_args)) / sigmas[i + 1]) / 2
        x = x + slope * (sigmas[i + 1] - sigmas[i])
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": first})
    return x


def silent_euler(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """No callback at all."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(x.shape[0]), **extra_args)
        x = denoised + (x - denoised) * (sigmas[i + 1] / sigmas[i])
    return x


def hidden_brownian(model, x, sigmas, extra_args=None, callback=None, disable=None, noise_sampler=None):
    """Ancestral, on a copy of its state, with the noise of one Brownian path."""
    from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler, get_ancestral_step

    low, high, seed = sigmas[sigmas > 0].min(), sigmas.max(), extra_args["seed"]
    noise_sampler = noise_sampler or BrownianTreeNoiseSampler(x, low, high, seed=seed, cpu=True)
    for i in range(len(sigmas) - 1):
        denoised = model(x.clone(), sigmas[i] * x.new_ones(x.shape[0]), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        down, up = get_ancestral_step(sigmas[i], sigmas[i + 1])
        x = denoised + (x - denoised) * (down / sigmas[i])
        if sigmas[i + 1] > 0:
            x = x + noise_sampler(sigmas[i], sigmas[i + 1]) * up
    return x


def hidden_with_noise_of_its_own(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """The same, with noise from its seed that nobody else can give it."""
    generator = torch.Generator().manual_seed(extra_args["seed"])
    noise = lambda a, b: torch.randn(x.shape, generator=generator)  # noqa: E731
    return hidden_brownian(model, x, sigmas, extra_args, callback, disable, noise)


def looking_at_values(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """Skips its second step for states that are not as noisy as random numbers."""
    smooth = float((x[..., 1:] - x[..., :-1]).std() / x.std()) < 1
    return silent_euler(model, x, torch.cat([sigmas[:1], sigmas[2:]]) if smooth else sigmas, extra_args)


@pytest.mark.parametrize(
    ("function", "options"),
    [
        ("euler", {"s_churn": 5.0}),
        ("heun", {"s_churn": 5.0, "s_noise": 1.01}),
        ("heunpp2", {"s_churn": 5.0}),
        ("dpm_2", {"s_churn": 3.0}),
        ("lms", {"order": 2}),
        ("lcm", {"noise_clip_std": 1.0, "s_noise_end": 0.5}),
        ("euler_ancestral", {"eta": 0.5, "s_noise": 1.1}),
        ("dpmpp_sde", {"r": 0.7}),
        ("ipndm", {"max_order": 2}),
        (midpoint_told_afterwards, {}),
        (silent_euler, {}),
    ],
)
def test_a_mask_of_ones_changes_nothing_bit_for_bit(comfy, function, options):
    model = random_unet()
    function = stock(function) if isinstance(function, str) else function
    known = inspect.signature(function).parameters  # lcm has no options on older hosts
    options = {name: value for name, value in options.items() if name in known}
    expected = run(model, function, options)
    out, text = replaced(model, given(1.0, 1, 8, 8), "0, 2-3, 5", function, options)
    assert torch.equal(out, expected)
    assert "restarted" not in text
    half = torch.zeros(1, 8, 8)
    half[..., :4] = 1
    assert not torch.equal(replaced(model, ImageMasking(half), "2-3", function, options)[0], expected)


@pytest.mark.parametrize("function", [stock("euler"), stock("heun"), stock("dpm_2"), stock("uni_pc"), silent_euler])
def test_a_run_that_is_replaced_wholly_is_a_run_from_the_reference(comfy, function):
    """From the noised reference at step 2 on, with the noise levels that are left."""
    import comfy.sample
    import comfy.samplers

    model, reference = random_unet(), latent(size=(8, 8), seed=4)["samples"]
    out, _ = replaced(model, given(0.0, 1, 8, 8), "2", function)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)[2:]
    sampler, noise = comfy.samplers.KSAMPLER(function), comfy.sample.prepare_noise(reference, 7)
    expected = comfy.sample.sample_custom(
        model, noise, 2.0, sampler, sigmas, conditioning(1), conditioning(2), reference, seed=7, disable_pbar=True
    )
    assert torch.equal(out, expected)


def test_a_sampler_that_hides_its_state_is_restarted_on_the_same_noise(comfy):
    """It remembers nothing, so a mask of ones still gives its own result bit for bit, and the report tells."""
    model = random_unet()
    expected = run(model, hidden_brownian)
    out, text = replaced(model, given(1.0, 1, 8, 8), "2-3, 5", hidden_brownian)
    assert torch.equal(out, expected)
    assert "hidden_brownian gives no access to its state, so it was restarted at step 2, 3, 5" in text


def test_a_sampler_that_can_be_changed_in_no_way_is_refused(comfy):
    with pytest.raises(
        ValueError, match="hidden_with_noise_of_its_own gives no access to its state and cannot be restarted"
    ):
        replaced(random_unet(), given(1.0, 1, 8, 8), "2", hidden_with_noise_of_its_own)


def test_a_trial_leaves_the_generators_of_the_host_alone(comfy):
    model = random_unet()
    run(model, stock("heunpp2"))
    expected = torch.rand(3)
    replaced(model, given(1.0, 1, 8, 8), "2", stock("heunpp2"))
    assert torch.equal(torch.rand(3), expected)


def test_a_sampler_that_changes_the_size_of_the_latent_is_refused(comfy):
    from comfy_extras.nodes_advanced_samplers import sample_lcm_upscale

    with pytest.raises(ValueError, match="sample_lcm_upscale cannot be tried on a small latent"):
        replaced(random_unet(), given(1.0, 1, 8, 8), "2", sample_lcm_upscale, {"total_upscale": 2.0})


def test_a_sampler_that_turns_out_to_make_other_steps_is_stopped(comfy):
    """In the trial, on random numbers, it follows the schedule; on this smooth latent it does not."""
    import comfy.sample
    import comfy.samplers

    model, smooth = random_unet(), torch.linspace(-9, 9, 64).view(1, 1, 8, 8).expand(1, 4, 8, 8)
    MaskedLatent(given(1.0, 1, 8, 8), latent(size=(8, 8))["samples"], "2", KEEP, REFERENCE).install(model)
    sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)[-4:]
    with pytest.raises(ValueError, match="looking_at_values chooses its own steps"):
        comfy.sample.sample_custom(
            model,
            torch.zeros_like(smooth),
            2.0,
            comfy.samplers.KSAMPLER(looking_at_values),
            sigmas,
            conditioning(1),
            conditioning(2),
            100 * smooth,
            seed=7,
            disable_pbar=True,
        )
