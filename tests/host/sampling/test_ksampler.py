"""Masked-latent sampling in the real ComfyUI against its own KSampler, on the toy checkpoint."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.plain_sampler import on_the_grid, sampled_with_masks
from tests.host.toy_sampling import CACHED, KEEP, REFERENCE, given, latent, masked_run

STEPS = 10


@pytest.mark.parametrize("sampler", ["euler", "ddpm", "dpmpp_2m"])
def test_a_mask_of_zeros_on_the_finished_latent_is_the_reference(toy, sampler):
    start, reference = latent(), latent(seed=4)
    out, _, _ = masked_run(toy.model, toy.settings(start, sampler), given(0.0), reference, "100%", KEEP, REFERENCE)
    # ComfyUI scales latents by 0.18215 and back: one rounding of numbers below 4
    torch.testing.assert_close(out["samples"], reference["samples"], atol=1e-6, rtol=0)


def test_the_replaced_state_is_the_noised_reference_at_that_steps_noise_level(toy):
    """After a full replacement at step j a run equals a stock run that starts there from the reference."""
    import comfy.sample
    import comfy.samplers

    start, reference, j = latent(), latent(seed=4), 4
    out, _, _ = masked_run(toy.model, toy.settings(start, "euler"), given(0.0), reference, str(j), KEEP, REFERENCE)
    schedule = comfy.samplers.KSampler(
        toy.model, STEPS, toy.model.load_device, "euler", "ddim_uniform", 0.7, toy.model.model_options
    ).sigmas
    noise = comfy.sample.prepare_noise(start["samples"], 7)
    expected = comfy.sample.sample_custom(
        toy.model,
        noise,
        3.0,
        comfy.samplers.sampler_object("euler"),
        schedule[j:],
        toy.positive,
        toy.negative,
        reference["samples"],
        seed=7,
    )
    assert torch.equal(out["samples"], expected)


def test_the_cached_reference_is_what_the_network_would_see_at_its_own_timestep(toy):
    """When everything is replaced by the reference of timestep 80, the network sees at step j what it sees there."""
    import comfy.sample

    start, seen = latent(), []
    patched = toy.model.clone()

    def spy(apply_model, args):
        seen.append(args["input"].clone() / (args["timestep"][0] ** 2 + 1) ** 0.5)
        return apply_model(args["input"], args["timestep"], **args["c"])

    patched.set_model_unet_function_wrapper(spy)
    masked_run(patched, toy.settings(start, "euler"), given(0.0), start, "3", KEEP, CACHED)
    sampling = toy.model.get_model_object("model_sampling")
    sigma = sampling.sigma(torch.tensor(80.0))
    reference = toy.model.model.process_latent_in(start["samples"])
    noise = comfy.sample.prepare_noise(start["samples"], 7)
    expected = (reference + sigma * noise) / (sigma**2 + 1) ** 0.5
    torch.testing.assert_close(seen[3][:1], expected, atol=1e-5, rtol=1e-5)


def test_a_run_that_adds_no_noise_still_noises_the_reference(toy):
    """The second of two samplers continues without noise of its own; its reference gets the noise of its seed."""
    import comfy.sample
    import nodes

    reference, seen = latent(seed=4)["samples"], []
    patched = toy.model.clone()
    patched.set_model_unet_function_wrapper(
        lambda f, a: seen.append((a["timestep"][0], a["input"][:1].clone())) or f(a["input"], a["timestep"], **a["c"])
    )
    MaskedLatent(given(0.0), reference, "2", KEEP, REFERENCE).install(patched)
    *values, denoise = toy.settings(latent(), "euler")
    nodes.common_ksampler(patched, *values, denoise=denoise, disable_noise=True)
    sigma, state = seen[2]
    expected = toy.model.model.process_latent_in(reference) + sigma * comfy.sample.prepare_noise(reference, 7)
    torch.testing.assert_close(state, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (12, 20), (17, 13)])
@pytest.mark.parametrize("batch", [1, 3])
def test_attention_masks_have_the_latents_grid_and_change_the_picture(toy, size, batch):
    settings, reference = toy.settings(latent(batch, size), "euler"), latent(1, size, seed=4)
    out, masks, saliency = masked_run(toy.model, settings, toy.attention(), reference, "3, 5", KEEP, REFERENCE)
    assert masks.shape == (2 * batch, size[0] * 8, size[1] * 8)
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert saliency.labels == ("dog, step 3", "dog, step 5")
    assert saliency.maps.shape == (2, batch, *size)
    torch.testing.assert_close(saliency.maps.sum((-2, -1)), torch.ones(2, batch), atol=1e-5, rtol=0)
    expected = sampled_with_masks(toy.model, settings, on_the_grid(masks, (3, 5)), reference["samples"])
    # the same sums in another order, over the ten steps of a run
    torch.testing.assert_close(out["samples"], expected, atol=1e-4, rtol=0)
    plain = sampled_with_masks(toy.model, settings, {}, reference["samples"])
    torch.testing.assert_close(plain, toy.stock(latent(batch, size), "euler"), atol=1e-4, rtol=0)
    assert not torch.allclose(expected, plain, atol=0.1)


def test_the_mask_is_the_threshold_of_the_reported_saliency(toy):
    start = latent()
    _, masks, saliency = masked_run(
        toy.model, toy.settings(start), toy.attention(rule="mean"), start, "4", KEEP, REFERENCE
    )
    above = saliency.maps[0] > saliency.maps[0].mean()
    assert torch.equal(masks[:, ::8, ::8], above.float())


def test_step_zero_costs_one_model_call_and_later_steps_none(toy):
    calls = []
    patched = toy.model.clone()
    patched.set_model_unet_function_wrapper(lambda f, a: calls.append(0) or f(a["input"], a["timestep"], **a["c"]))
    counts = {}
    for at in ("", "3, 5", "0"):
        calls.clear()
        masked_run(patched, toy.settings(latent()), toy.attention(), latent(), at, KEEP, REFERENCE)
        counts[at] = len(calls)
    assert counts["3, 5"] == counts[""] == STEPS
    assert counts["0"] == STEPS + 1


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(toy):
    start = latent()
    first, again, other = (
        masked_run(toy.model, toy.settings(start, seed=s), toy.attention(), start, "2, 4", KEEP, REFERENCE)[0][
            "samples"
        ]
        for s in (7, 7, 8)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_an_incoming_noise_mask_still_protects_its_part(toy):
    start = latent()
    protected = torch.ones(1, 1, 128, 128)
    protected[..., :64] = 0
    out, _, _ = masked_run(
        toy.model,
        toy.settings({**start, "noise_mask": protected}, "euler"),
        given(0.0),
        latent(seed=4),
        "3",
        KEEP,
        REFERENCE,
    )
    torch.testing.assert_close(out["samples"][..., :8], start["samples"][..., :8], atol=1e-6, rtol=0)
    assert not torch.allclose(out["samples"][..., 8:], start["samples"][..., 8:], atol=0.1)


def test_callbacks_count_the_whole_run(toy, monkeypatch):
    """Progress and previews come from the host's callback: it must see every step once, in order."""
    import latent_preview

    seen = []
    monkeypatch.setattr(
        latent_preview, "prepare_callback", lambda *a, **k: lambda step, x0, x, n: seen.append((step, n))
    )
    masked_run(toy.model, toy.settings(latent()), toy.attention(), latent(), "2, 5", KEEP, REFERENCE)
    assert seen == [(step, STEPS) for step in range(STEPS)]


@pytest.mark.parametrize(
    ("reference", "at", "words"),
    [
        (latent(1, (16, 24)), "3", "16 x 24 with 4 channels but the sampled latent is 16 x 16"),
        (latent(2), "3", "2 reference latents for a batch of 1"),
        (latent(), "11", "step 11 does not exist. This run makes 10 steps"),
        (latent(), "soon", "'soon' is not a step"),
    ],
)
def test_mistakes_are_told_and_the_next_run_is_as_fresh(toy, reference, at, words):
    start = latent()
    with pytest.raises(ValueError, match=words):
        masked_run(toy.model, toy.settings(start), toy.attention(), reference, at, KEEP, REFERENCE)
    assert not toy.model.wrappers
    out, _, _ = masked_run(toy.model, toy.settings(start), given(1.0), start, "3", KEEP, REFERENCE)
    assert torch.equal(out["samples"], toy.stock(start))


def test_words_of_another_prompt_are_an_error_not_an_empty_mask(toy):
    text = " ".join(["very"] * 90) + " nice dog on the beach"
    subjects = parse(text, tokenize(toy.clip, text), "dog").with_role("subject")
    with pytest.raises(ValueError, match="lie outside the conditioning's 77 tokens"):
        masked_run(
            toy.model, toy.settings(latent()), AttentionMasking(subjects, Shaping()), latent(), "3", KEEP, REFERENCE
        )
