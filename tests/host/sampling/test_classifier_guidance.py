"""Classifier guidance under the host's samplers: what it leaves alone where it is off, and that scores rise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.guidance import Guidance
from explainable_latents.nodes.core.methods.picture_score import TextMatch, clip_pixels
from tests.host.eyes import SIDE, WIDTH, random_eyes, random_vae
from tests.host.operations import at
from tests.host.unets import noise, random_unet, sample

STEPS, GRID = 3, (8, 8)
HOW = Guidance(1.0, "0-100%", "relative", 0.1, "constant")
TEXT = TextMatch(torch.randn(WIDTH, generator=torch.Generator().manual_seed(9)))


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet(seed=3)


@pytest.fixture(scope="module")
def seen(comfy) -> tuple[Any, Any]:
    """A VAE and a CLIP image encoder."""
    return random_vae(), random_eyes()


def guided(model, seen, how: Guidance = HOW, scores=(TEXT,)):
    """A copy of the model that is guided, and its report."""
    from explainable_latents.nodes.host.sampling.classifier_guidance import guide_by_pictures

    copy = model.clone()
    return copy, guide_by_pictures(copy, "Classifier Guidance", *seen, scores, how)


def run(model, sampler: str = "euler", **how) -> Tensor:
    with torch.inference_mode():
        return sample(model, STEPS, sampler=sampler, **{"grid": GRID, **how})


def scored(seen, latents: Tensor) -> list[float]:
    """How well pictures match the text, as the host decodes and sees them."""
    vae, eyes = seen
    with torch.no_grad():
        pictures = vae.first_stage_model.decode(latents.clone()).add(1).div(2).clamp(0, 1)
        pixels = clip_pixels(pictures, SIDE, eyes.image_mean, eyes.image_std)
        return (1 - TEXT.loss(eyes.model(pixel_values=pixels)[2])).tolist()


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc"])
def test_without_strength_it_is_the_plain_picture_bit_for_bit_and_nothing_is_installed(model, seen, sampler):
    copy, report = guided(model, seen, replace(HOW, strength=0.0))
    assert [key for key, keys in copy.wrappers.items() if any(keys.values())] == ["outer_sample"]
    assert copy.additional_models == model.additional_models
    made = run(copy, sampler)
    assert torch.equal(made, run(model, sampler))
    assert report.text(made) == "no step was guided"


@pytest.mark.parametrize(("sampler", "form"), [("euler", "auto"), ("dpmpp_2m", "state"), ("uni_pc", "auto")])
def test_the_score_rises_against_the_plain_run(model, seen, sampler, form):
    copy, report = guided(model, seen, replace(HOW, act_on=form))
    made = run(copy, sampler, batch=2)
    plain, better = scored(seen, run(model, sampler, batch=2)), scored(seen, made)
    assert all(after > before for before, after in zip(plain, better, strict=True))
    steps = report.steps(made)
    assert [step.labels for step in steps] == [("text",)] * len(steps)
    assert {step.step for step in steps} == set(range(STEPS))
    assert "loss of text" in report.text(made)


def test_a_batch_of_three_is_three_runs(model, seen):
    start = noise(3, GRID)
    copy, report = guided(model, seen)
    together = run(copy, batch=3, start=start)
    for i in range(3):
        copy, alone = guided(model, seen)
        one = run(copy, start=start[i : i + 1])
        for all_of_them, single in zip(report.steps(together), alone.steps(one), strict=True):
            torch.testing.assert_close(all_of_them.before[:, i : i + 1], single.before, atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(together[i : i + 1], one, atol=2e-2, rtol=1e-2)


def test_the_score_unit_changes_the_prediction_by_sigma_squared_times_the_gradient(model, seen):
    """Dhariwal and Nichol's equation 10 for a state with noise of deviation σ, worked out from one measurement."""
    how = Guidance(0.5, "0", "score", 1.0, "constant", "prediction")
    copy, report = guided(model, seen, how)
    made = run(copy)
    (step,) = report.steps(made)
    measured, _ = guided(model, seen, replace(how, unit="variance"))
    other = run(measured)
    # of one Euler step the unit 'variance' moves the state by σ², which the prediction gets σ/(σ - σ') times
    (varied,) = report_of(measured, seen, how, other, model)
    sigmas = step.sigma, following(model)
    ratio = sigmas[0] * (sigmas[0] - sigmas[1]) / sigmas[0] ** 2
    assert float(step.changed[0]) == pytest.approx(float(varied.changed[0]) * ratio, rel=1e-3)


def report_of(copy, seen, how, made, model):
    again, report = guided(model, seen, replace(how, unit="variance"))
    return report.steps(run(again))


def following(model) -> float:
    import comfy.samplers

    return float(comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", STEPS)[1])


def test_inpainting_changes_nothing_outside_of_its_mask(model, seen):
    mask = torch.zeros(1, 1, *GRID)
    mask[..., 2:6, 2:6] = 1
    made, plain = (run(each, noise_mask=mask) for each in (guided(model, seen)[0], model))
    outside = mask[0].expand_as(made[0]) == 0
    assert torch.equal(made[0][outside], plain[0][outside])
    assert not torch.equal(made, plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_finds_the_direction_of_float32(comfy, seen, dtype):
    x = noise(1, GRID, seed=2)
    found = []
    for precision in (torch.float32, dtype):
        copy, report = guided(random_unet(seed=3, dtype=precision), seen, replace(HOW, steps="0"))
        found.append(report.steps(run(copy, start=x))[0])
    assert found[1].updates.tolist() == [1]
    torch.testing.assert_close(found[1].before, found[0].before, atol=0.05, rtol=0.05)


def test_cancel_ends_the_run_and_leaves_nothing(model, seen):
    from comfy.model_management import InterruptProcessingException, interrupt_current_processing

    copy, report = guided(model, seen)
    whole = run(guided(model, seen)[0])
    with pytest.raises(InterruptProcessingException), at("backward", 3, interrupt_current_processing):
        run(copy)
    assert report.runs.kept == []
    networks = model.model.diffusion_model, seen[0].first_stage_model, seen[1].model
    assert all("forward" not in vars(module) for network in networks for module in network.modules())
    assert torch.equal(run(copy), whole)


def test_two_classifiers_guide_one_model_each_with_a_report_of_its_own(model, seen):
    from explainable_latents.nodes.host.sampling.classifier_guidance import guide_by_pictures

    copy, first = guided(model, seen)
    second = guide_by_pictures(copy, "Classifier Guidance", *seen, [replace(TEXT, text=-TEXT.text)], HOW)
    made = run(copy)
    assert len(first.steps(made)) == len(second.steps(made)) == STEPS
    assert not torch.equal(first.steps(made)[0].before, second.steps(made)[0].before)


def test_mistakes_are_told(model, seen):
    with pytest.raises(ValueError, match="nothing says what the picture shall be like"):
        guided(model, seen, scores=())
    with pytest.raises(ValueError, match=r"text is about embeddings of 7 numbers, but this clip_vision gives 12"):
        guided(model, seen, scores=[TextMatch(torch.ones(7))])
