"""Several variants of one run, on small random networks: with recorded answers, so that nobody has to be asked."""

from __future__ import annotations

import json

import pytest
import torch

from explainable_latents.nodes.host.sampling import variants
from explainable_latents.nodes.host.sampling.pausing import PausePlan
from tests.host.unets import conditioning, noise, random_unet, sample

STEPS = 4
CHANGED = [{"step": 2, "values": {"cfg": 9.0}}]


def paused(model, answers: list):
    """A clone that pauses before step 2."""
    clone = model.clone()
    report = PausePlan("2", 0, "continue", json.dumps(answers)).install(clone)
    return clone, report


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_of_three_has_three_pictures_of_each_variant(comfy, dtype):
    model, run = random_unet("SDXL", dtype), {"batch": 3, "grid": (16, 24), "sampler": "dpmpp_2m_sde"}
    clone, report = paused(model, [CHANGED, [], CHANGED])
    made = sample(clone, STEPS, **run)
    first, second, third = made.split(3)
    assert torch.equal(second, sample(model, STEPS, **run))
    assert torch.equal(first, third)
    assert torch.equal(first, sample(paused(model, CHANGED)[0], STEPS, **run))
    assert not torch.equal(first, second)
    text = report.outputs(made)[2].splitlines()
    assert text[:2] == ["variant 1 of 3", "variant 3 of the recorded answers"]  # which made the same as the first
    assert json.loads(text[-1].removeprefix("answers: ")) == [CHANGED, [], CHANGED]
    assert report.outputs(second)[2].splitlines()[0] == "variant 2 of the recorded answers"


def sampled_by(function, model) -> torch.Tensor:
    """What a sampler function gives."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning(1), conditioning(2))
    guider.set_cfg(4.0)
    torch.manual_seed(5)
    sigmas = comfy.samplers.KSampler(model, STEPS, torch.device("cpu"), "euler", "normal").sigmas
    sampler = comfy.samplers.KSAMPLER(function)
    latent = torch.full_like(noise(), 0.1)
    return guider.sample(noise(), latent, sampler, sigmas, disable_pbar=True, seed=0)


@torch.no_grad()
def careless(model, x, sigmas, extra_args=None, callback=None, disable=None):
    """A sampler that draws from the process's generator, and writes into its arguments."""
    for i in range(len(sigmas) - 1):
        denoised = model(x, sigmas[i] * x.new_ones(len(x)), **extra_args)
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": denoised})
        x.lerp_(denoised, 0.5).add_(torch.randn(x.shape), alpha=0.1)
        sigmas[i] = 0.0
    extra_args["model_options"].clear()
    return x


def test_a_sampler_that_spoils_its_arguments_and_draws_from_the_process_begins_anew_each_time(comfy):
    model = random_unet()
    first, second, third = sampled_by(careless, paused(model, [[], CHANGED, []])[0]).split(1)
    assert torch.equal(first, sampled_by(careless, model))
    assert torch.equal(first, third)
    assert torch.equal(second, sampled_by(careless, paused(model, CHANGED)[0]))


def test_other_wrappers_see_a_run_for_each_variant_whenever_they_were_installed(comfy):
    from comfy.patcher_extension import WrappersMP

    seen = []

    def watched(name: str):
        def wrapper(executor, *args, **kwargs):
            made = executor(*args, **kwargs)
            seen.append((name, len(made)))
            return made

        return wrapper

    model = random_unet()
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "before", watched("before"))
    clone, _ = paused(model, [[], CHANGED])
    clone.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "after", watched("after"))
    assert len(sample(clone, STEPS)) == 2
    assert seen == [("after", 1), ("before", 1)] * 2


def test_more_variants_than_the_memory_holds_are_an_error(comfy, monkeypatch):
    model = random_unet()
    plain = sample(model, STEPS)
    monkeypatch.setattr(variants, "MOST_BYTES", 2 * plain.numel() * 4)
    assert len(sample(paused(model, [[], []])[0], STEPS)) == 2
    with pytest.raises(ValueError, match="3 variants of this latent take more than 0 MB"):
        sample(paused(model, [[], [], []])[0], STEPS)
