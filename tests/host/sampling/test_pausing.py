"""Values that change in a run, on small random networks: with recorded answers, so that nobody has to be asked."""

from __future__ import annotations

import json

import pytest
import torch

from explainable_latents.nodes.host.sampling.pausing import PausePlan
from tests.host.unets import conditioning, noise, random_unet, sample

STEPS, AT = 5, 2
# The noise levels of 5 steps lie at 0, 25, 50, 75 and 100 percent of the schedule: this is between steps 1 and 2.
SWITCH = 0.375


def paused(model, values: dict[str, float], alternative: list | None = None):
    """A clone that changes these values before step 2."""
    clone = model.clone()
    answers = json.dumps([{"step": AT, "values": values}])
    PausePlan(str(AT), 0, "continue", answers, alternative).install(clone)
    return clone


def averaged(positive: list, other: list, blend: float) -> list:
    """The prompts averaged by the host's own node."""
    import nodes

    return nodes.ConditioningAverage().addWeighted(positive, other, 1 - blend)[0]


def between(conditionings: list, start: float, end: float) -> list:
    """The same prompts in a part of the noise schedule only."""
    return [[context, {**options, "start_percent": start, "end_percent": end}] for context, options in conditionings]


@pytest.mark.parametrize(
    ("kind", "dtype", "sampler"), [("SDXL", torch.float32, "heun"), ("SD15", torch.bfloat16, "dpmpp_2m")]
)
def test_a_blend_is_the_average_of_text_and_pooled_text_for_every_positive_prompt(comfy, kind, dtype, sampler):
    """The oracle: the host's average, and its ranges of noise levels. The other prompt is longer by one chunk."""
    model = random_unet(kind, dtype)
    positive, other = conditioning(1, chunks=2, strength=0.7) + conditioning(3), conditioning(5)
    run = {"steps": STEPS, "sampler": sampler, "batch": 3, "grid": (16, 24)}
    blended = sample(paused(model, {"blend": 0.25}, other), positive=positive, **run)
    parts = between(positive, 0.0, SWITCH) + between(averaged(positive, other, 0.25), SWITCH, 1.0)
    assert torch.equal(blended, sample(model, positive=parts, **run))
    assert not torch.equal(blended, sample(model, positive=positive, **run))


def test_a_blend_that_is_taken_back_is_the_positive_prompt_again(comfy):
    model = random_unet()
    clone = model.clone()
    answers = [{"step": step, "values": {"blend": blend}} for step, blend in ((1, 1.0), (2, 0.0))]
    PausePlan("1, 2", 0, "continue", json.dumps(answers), conditioning(5)).install(clone)
    parts = [*between(conditioning(1), 0, 0.125), *between(conditioning(5), 0.125, SWITCH)]
    parts += between(conditioning(1), SWITCH, 1)
    assert torch.equal(sample(clone, STEPS), sample(model, STEPS, positive=parts))


def guider_of(model, negative: bool = True):
    """The host's guider."""
    import comfy.samplers

    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": conditioning(1), **({"negative": conditioning(2)} if negative else {})})
    guider.set_cfg(4.0)
    return guider


def sampled(guider, steps: int = STEPS) -> torch.Tensor:
    """What it samples."""
    import comfy.samplers

    sigmas = comfy.samplers.KSampler(guider.model_patcher, steps, torch.device("cpu"), "euler", "normal").sigmas
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise(), torch.zeros_like(noise()), sampler, sigmas, disable_pbar=True, seed=0)


def test_the_guider_has_its_own_scale_again_after_the_run(comfy):
    model = random_unet()
    guider = guider_of(paused(model, {"cfg": 9.0}))
    changed = sampled(guider)
    assert guider.cfg == 4.0
    assert torch.equal(sampled(guider), changed)
    assert not torch.equal(changed, sampled(guider_of(model)))


def test_a_guider_without_a_negative_prompt_has_no_scale_to_change(comfy):
    with pytest.raises(ValueError, match="this run has no 'cfg' to change, only nothing"):
        sampled(guider_of(paused(random_unet(), {"cfg": 9.0}), negative=False))


def test_an_alternative_is_one_prompt(comfy):
    with pytest.raises(ValueError, match="alternative holds 2 prompts"):
        PausePlan("1", 0, "continue", "", conditioning(1) + conditioning(2))
