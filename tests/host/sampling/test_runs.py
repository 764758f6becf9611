"""A capture or report gives what belongs to the very run that made a latent, or an error that says what to do."""

import gc

import pytest
import torch

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking
from explainable_latents.nodes.host.attention.observer import AttentionCapture, observe
from explainable_latents.nodes.host.one_call import gradient_saliency, probe
from explainable_latents.nodes.host.sampling import runs
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.toy_sampling import KEEP, REFERENCE, given
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

QUEUE_AGAIN = "queue the workflow once more and the sampler runs again"


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def observed(model):
    patcher = model.clone()
    return patcher, observe(patcher, SUBJECTS)


def by_name(executor, noise, latent, sampler, sigmas, denoise_mask=None, callback=None, *args, **kwargs):
    """Another node's wrapper of a run, which names what the host gives by position."""
    names = dict(zip(("disable_pbar", "seed"), args, strict=False))
    return executor(noise, latent, sampler, sigmas, denoise_mask=denoise_mask, callback=callback, **names, **kwargs)


def maps_of(capture, samples, how="mean"):
    return capture.saliency(samples, "all", how).maps


def test_each_of_several_runs_is_found_by_its_latent(model):
    """Seed 1, seed 2, back to seed 1: its latent may come from the host's cache, its sampler does not run again."""
    patcher, capture = observed(model)
    made = [sample(patcher, start=noise(seed=seed)) for seed in range(3)]
    for seed, samples in enumerate(made):
        alone, other = observed(model)
        assert torch.equal(maps_of(capture, samples), maps_of(other, sample(alone, start=noise(seed=seed))))


def test_a_run_that_is_repeated_is_kept_once(model):
    patcher, capture = observed(model)
    for _ in range(3):
        sample(patcher, 1)
    assert len(capture.runs.kept) == 1


def test_a_latent_that_no_run_made_is_an_error_even_when_there_was_one_run_only(model):
    patcher, capture = observed(model)
    made = sample(patcher)
    with pytest.raises(ValueError, match=f"none of the 1 runs in the capture made this latent.* {QUEUE_AGAIN}"):
        maps_of(capture, made + 1)
    assert capture.runs.lost


def test_runs_are_forgotten_when_they_take_too_much_memory_and_an_error_says_what_to_do(model, monkeypatch):
    patcher, capture = observed(model)
    first = sample(patcher)
    monkeypatch.setattr(runs, "KEPT_BYTES", int(2.5 * capture.runs.kept[0].size()))
    second, third = (sample(patcher, start=noise(seed=seed)) for seed in (1, 2))
    assert not torch.equal(maps_of(capture, second), maps_of(capture, third))
    with pytest.raises(ValueError, match=f"none of the 2 runs in the capture made this latent.* {QUEUE_AGAIN}"):
        maps_of(capture, first)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_latent_is_recognised_in_the_type_that_the_host_keeps_latents_in(model, dtype):
    patcher, capture = observed(model)
    made = sample(patcher)
    assert torch.equal(maps_of(capture, made.to(dtype)), maps_of(capture, made))


@pytest.mark.parametrize("named", [False, True], ids=["as the host", "by a node that names its arguments"])
def test_the_denoised_output_of_a_sampler_node_is_of_its_run(toy, named):
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import BasicScheduler, SamplerCustom

    patcher = toy.model.clone()
    if named:
        patcher.add_wrapper_with_key("outer_sample", "another pack", by_name)
    capture = observe(patcher, toy.attention().subjects)
    report = MaskedLatent(given(0.5), noise(seed=4), "1", KEEP, REFERENCE).install(patcher)
    sigmas = BasicScheduler.execute(patcher, "normal", 4, 1.0)[0][:3]  # stops while there is noise
    chosen = comfy.samplers.sampler_object("euler")
    arguments = (patcher, True, 7, 3.0, toy.positive, toy.negative, chosen, sigmas, {"samples": noise() * 0})
    latent, denoised = SamplerCustom.execute(*arguments).result
    assert not torch.equal(latent["samples"], denoised["samples"])
    assert torch.equal(maps_of(capture, latent["samples"]), maps_of(capture, denoised["samples"]))
    assert report.manipulations(latent["samples"]) is report.manipulations(denoised["samples"])


def test_two_runs_that_make_the_same_latent_in_different_ways_cannot_be_told_apart(model):
    """At the end everything is replaced by the reference, whatever was sampled before."""
    patcher, capture = observed(model)
    MaskedLatent(given(0.0), noise(seed=4), "3", KEEP, REFERENCE).install(patcher)
    made = [sample(patcher, start=noise(seed=seed)) for seed in (0, 1)]
    assert torch.equal(*made)
    with pytest.raises(ValueError, match="several runs of the model of Capture Attention made exactly this latent"):
        maps_of(capture, made[0])


def test_a_sampler_within_a_sampler_has_a_report_and_a_capture_of_its_own(model):
    """The host itself allows it on one model behind the outer sampler's last model call only."""
    patcher, capture = observed(model)
    report = MaskedLatent(given(0.5), noise(seed=4), "1, 2", KEEP, REFERENCE).install(patcher)
    inner: list[torch.Tensor] = []

    def within(step, *_):
        if step == 2:
            inner.append(sample(patcher, start=noise(seed=1)))

    outer = sample(patcher, callback=within)
    for samples, start in ((outer, noise()), (inner[0], noise(seed=1))):
        assert torch.equal(samples, sample(patcher, start=start))
        assert [entry.step for entry in report.manipulations(samples)] == [1, 2]
        assert [call.step for call in capture.runs.of(samples).saliencies] == [0, 1, 2]


def captures() -> set[AttentionCapture]:
    """All that are alive."""
    return {each for each in gc.get_objects() if type(each) is AttentionCapture}


def test_a_mask_keeps_no_maps_of_the_steps_it_was_not_asked_for(model):
    gc.collect()
    before, patcher = captures(), model.clone()
    MaskedLatent(AttentionMasking(SUBJECTS, Shaping()), noise(seed=4), "1", KEEP, REFERENCE).install(patcher)
    (capture,) = captures() - before
    held = []
    sample(patcher, 3, callback=lambda *_: held.append(capture.runs.current.size()))
    assert held == [0, 0, 0]
    assert capture.runs.kept == []


PROBES = {
    "attention": lambda model: probe(model, conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 3),
    "gradients": lambda model: gradient_saliency(
        model, conditioning(1), {"samples": noise()}, SUBJECTS, 0.5, 3, "absolute", "structured"
    ),
}


@pytest.mark.parametrize("kind", PROBES)
def test_a_probe_of_a_patched_model_works_and_is_no_run_of_its_capture_and_report(model, kind):
    patcher, capture = observed(model)
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
    report = MaskedLatent(masking, noise(seed=4), "5", KEEP, REFERENCE).install(patcher)
    made = sample(patcher, 8)
    maps, manipulations = maps_of(capture, made, "each"), report.manipulations(made)
    found = PROBES[kind](patcher)
    assert torch.equal(found.maps, PROBES[kind](model).maps)
    assert len(capture.runs.kept) == len(report.runs.kept) == 1
    assert torch.equal(maps_of(capture, made, "each"), maps)
    assert report.manipulations(made) is manipulations
