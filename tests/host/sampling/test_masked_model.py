"""The patched model under every stock sampler node, beside other patches, in batches, and twice on one model."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masking import AttentionMasking, GradientMasking, ImageMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.patches import PATCHES
from tests.host.plain_sampler import sampled_with_masks
from tests.host.toy_sampling import KEEP, REFERENCE, given, latent
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

HALF = torch.zeros(1, 16, 16)
HALF[..., :8] = 1
HOW = {"scheduler": "normal", "steps": 8, "denoise": 1.0}


def patched(model, masking, at: str, reference: dict | None = None, inside=KEEP, outside=REFERENCE):
    """A copy of the model with masked latents, and its report."""
    copy = model.clone()
    plan = MaskedLatent(masking, (reference or latent(seed=4))["samples"], at, inside, outside)
    return copy, plan.install(copy)


def sigmas_of(model) -> Tensor:
    from comfy_extras.nodes_custom_sampler import BasicScheduler

    return BasicScheduler.execute(model, "normal", 8, 1.0)[0]


def ksampler_advanced(toy, model, sampler: str, start: int, end: int, x: dict, add_noise: bool, leave: bool) -> dict:
    import nodes

    add, leftover = ("enable" if add_noise else "disable"), ("enable" if leave else "disable")
    arguments = (model, add, 7, 8, 3.0, sampler, "normal", toy.positive, toy.negative, x, start, end, leftover)
    return nodes.KSamplerAdvanced().sample(*arguments)[0]


def sampler_custom(toy, model, sampler: str) -> dict:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import SamplerCustom

    chosen = comfy.samplers.sampler_object(sampler)
    arguments = (model, True, 7, 3.0, toy.positive, toy.negative, chosen, sigmas_of(model), latent())
    return SamplerCustom.execute(*arguments)[0]


def sampler_custom_advanced(toy, model, sampler: str, sigmas: Tensor, x: dict, add_noise: bool = True) -> dict:
    import comfy.samplers
    from comfy_extras.nodes_custom_sampler import CFGGuider, DisableNoise, RandomNoise, SamplerCustomAdvanced

    guider = CFGGuider.execute(model, toy.positive, toy.negative, 3.0)[0]
    noise_source = RandomNoise.execute(7)[0] if add_noise else DisableNoise.execute()[0]
    chosen = comfy.samplers.sampler_object(sampler)
    return SamplerCustomAdvanced.execute(noise_source, guider, chosen, sigmas, x)[0]


@pytest.mark.parametrize("sampler", ["euler", "ddpm", "dpmpp_2m_sde"])
def test_every_sampler_node_gives_the_same(toy, sampler):
    """KSampler, KSampler (Advanced), SamplerCustom and SamplerCustomAdvanced share a model; each has its own report."""
    model, report = patched(toy.model, toy.attention(), "2, 5")
    first = {"samples": toy.stock(latent(), sampler, model=model, **HOW)}
    made = [
        first,
        ksampler_advanced(toy, model, sampler, 0, 10000, latent(), True, False),
        sampler_custom(toy, model, sampler),
        sampler_custom_advanced(toy, model, sampler, sigmas_of(model), latent()),
    ]
    expected = report.manipulations(first["samples"])
    assert [(m.step, m.saliency.labels) for m in expected] == [(2, ("dog",)), (5, ("dog",))]
    for other in made[1:]:
        assert torch.equal(other["samples"], first["samples"])
        assert torch.equal(torch.cat([m.mask for m in report.manipulations(other["samples"])]), _masks(expected))
    assert not torch.equal(first["samples"], toy.stock(latent(), sampler, **HOW))


def _masks(manipulations) -> Tensor:
    return torch.cat([m.mask for m in manipulations])


@pytest.mark.parametrize("node", ["KSampler (Advanced)", "SamplerCustomAdvanced"])
def test_split_runs_equal_one_run(toy, node):
    """Sampled in two halves, with the plan on the second one only: its steps count from the beginning of that half."""
    whole, report = patched(toy.model, toy.attention(), "5", latent(seed=4))
    expected = toy.stock(latent(), "euler", model=whole, **HOW)
    second, second_report = patched(toy.model, toy.attention(), "2", latent(seed=4))
    if node == "SamplerCustomAdvanced":
        sigmas = sigmas_of(toy.model)
        halfway = sampler_custom_advanced(toy, toy.model, "euler", sigmas[:4], latent())
        end = sampler_custom_advanced(toy, second, "euler", sigmas[3:], halfway, add_noise=False)
    else:
        halfway = ksampler_advanced(toy, toy.model, "euler", 0, 3, latent(), True, True)
        end = ksampler_advanced(toy, second, "euler", 3, 10000, halfway, False, False)
        # between the halves ComfyUI scales the latent by 0.18215 and back, and the model carries that rounding on
        torch.testing.assert_close(end["samples"], expected, atol=1e-4, rtol=0)
    # SamplerCustomAdvanced knows no seed when it adds no noise: its reference gets other noise, at the same step
    ours, theirs = second_report.manipulations(end["samples"]), report.manipulations(expected)
    assert [(m.step, round(m.sigma, 4)) for m in ours] == [(2, round(theirs[0].sigma, 4))]
    assert torch.equal(_masks(ours), _masks(theirs))
    assert 0 < _masks(theirs).mean() < 1


@pytest.mark.parametrize("sampler", ["euler", "ddpm", "dpmpp_sde", "uni_pc"])
def test_two_plans_on_one_model_act_beside_each_other(toy, sampler):
    """Steps of both count in the whole run, one noise serves all segments, and each keeps its own report."""
    reference = latent(seed=4)
    once, _ = patched(toy.model, ImageMasking(HALF), "2, 5", reference)
    twice, first = patched(toy.model, ImageMasking(HALF), "2", reference)
    twice, second = patched(twice, ImageMasking(HALF), "5", reference)
    made = toy.stock(latent(), sampler, model=twice, **HOW)
    assert torch.equal(made, toy.stock(latent(), sampler, model=once, **HOW))
    assert [[m.step for m in report.manipulations(made)] for report in (first, second)] == [[2], [5]]


def test_plans_at_one_step_act_in_the_order_they_were_put_on(toy):
    other = latent(seed=5)
    first, _ = patched(toy.model, given(0.0), "8", latent(seed=4))
    both, _ = patched(first, ImageMasking(HALF), "8", other)
    out = toy.stock(latent(), "euler", model=both, **HOW)
    torch.testing.assert_close(out[..., :8], latent(seed=4)["samples"][..., :8], atol=1e-6, rtol=0)
    torch.testing.assert_close(out[..., 8:], other["samples"][..., 8:], atol=1e-6, rtol=0)


@pytest.mark.parametrize("at", ["3", "3, 8", "0-8"])
def test_a_noise_mask_protects_its_part_of_every_step_and_of_the_finished_latent(toy, at):
    protected = torch.ones(1, 1, 128, 128)
    protected[..., :64] = 0
    start = {**latent(), "noise_mask": protected}
    model, _ = patched(toy.model, given(0.0), at)
    out = toy.stock(start, "euler", model=model, **HOW)
    torch.testing.assert_close(out[..., :8], start["samples"][..., :8], atol=1e-6, rtol=0)
    assert not torch.allclose(out[..., 8:], start["samples"][..., 8:], atol=0.1)


def test_a_batch_equals_single_runs_with_the_same_noise(toy):
    """A batched matrix product rounds otherwise than a single one; masks are compared where that cannot decide."""
    start, reference = latent(3), latent(3, seed=4)
    model, report = patched(toy.model, toy.attention(), "2, 5", reference)
    batch = toy.stock(start, "euler", model=model, **HOW)
    masks = [m.mask for m in report.manipulations(batch)]
    for i in range(3):
        one = {"samples": start["samples"][i : i + 1], "batch_index": [i]}
        alone, own = patched(toy.model, toy.attention(), "2, 5", {"samples": reference["samples"][i : i + 1]})
        single = toy.stock(one, "euler", model=alone, **HOW)
        for mask, found in zip(masks, own.manipulations(single), strict=True):
            assert torch.equal(mask[i : i + 1], found.mask)
        torch.testing.assert_close(batch[i : i + 1], single, atol=1e-3, rtol=0)


def test_one_reference_serves_a_batch(toy):
    model, report = patched(toy.model, toy.attention(), "8", latent(seed=4))
    out = toy.stock(latent(2), "euler", model=model, **HOW)
    (at_end,) = report.manipulations(out)
    outside = (at_end.mask == 0).unsqueeze(1).expand_as(out)
    expected = latent(seed=4)["samples"].expand_as(out)
    torch.testing.assert_close(out[outside], expected[outside], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_other_precisions(comfy, dtype):
    model, grid = random_unet(dtype=dtype), (8, 6)
    latent_of_zeros = {"samples": torch.zeros(1, 4, *grid)}
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
    masked, report = patched(model, masking, "1, 2", {"samples": noise(1, grid, seed=4)})
    out = sample(masked, grid=grid)
    made = report.manipulations(out)
    assert {m.mask.dtype for m in made} == {torch.float32}
    settings = (0, 3, 4.0, "euler", "normal", conditioning(1), conditioning(2), latent_of_zeros, 1.0)
    masks = {m.step: m.mask.unsqueeze(1) for m in made}
    assert all(0 < mask.mean() < 1 for mask in masks.values())
    expected = sampled_with_masks(model, settings, masks, noise(1, grid, seed=4))
    # the sampler computes in float32 around the same calls of the network
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("grid", [(12, 20), (18, 14)])
@pytest.mark.parametrize("kind", ["SD15", "SD20", "SDXL"])
def test_every_kind_of_model_and_odd_sizes(comfy, kind, grid):
    model = random_unet(kind)
    masked, report = patched(
        model, AttentionMasking(SUBJECTS.with_role("subject"), Shaping()), "1, 3", {"samples": noise(2, grid, seed=4)}
    )
    out = sample(masked, batch=2, grid=grid)
    masks, saliency, text = report.outputs(out)
    assert masks.shape == (4, 8 * grid[0], 8 * grid[1])
    assert saliency.labels == ("dog, step 1", "dog, step 3")
    assert text.startswith("step 1: sigma ")


@pytest.mark.parametrize("name", PATCHES)
def test_in_front_of_and_behind_other_patches(comfy, name):
    """A mask of ones changes nothing of what the other patch makes; a mask from attention works with it."""
    model, patch = random_unet(), PATCHES[name]
    expected = sample(patch(model))
    for at, masking in (("1", given(1.0)), ("1", AttentionMasking(SUBJECTS.with_role("subject"), Shaping()))):
        front, _ = patched(patch(model), masking, at)
        behind = patch(patched(model, masking, at)[0])
        made = sample(front)
        assert torch.equal(made, sample(behind))
        assert torch.equal(made, expected) == isinstance(masking, ImageMasking)


def test_cancel_leaves_nothing_and_the_next_run_is_as_fresh(toy):
    import comfy.model_management

    model, report = patched(toy.model, toy.attention(), "2, 5")
    expected = toy.stock(latent(), "euler", model=model, **HOW)
    kept = report.manipulations(expected)
    stopped = model.clone()

    def cancel(apply_model, args):
        comfy.model_management.interrupt_current_processing()
        comfy.model_management.throw_exception_if_processing_interrupted()

    stopped.set_model_unet_function_wrapper(cancel)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        toy.stock(latent(), "euler", model=stopped, **HOW)
    assert report.manipulations(expected) == kept
    assert torch.equal(toy.stock(latent(), "euler", model=model, **HOW), expected)
    assert not toy.model.wrappers


@pytest.mark.parametrize("kind", [AttentionMasking, GradientMasking])
@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_the_patched_model_is_gone_with_its_last_owner(comfy, sampler, kind):
    """Not later, with a cycle of references: ComfyUI then knows no owner of the weights that it has loaded.

    It warns of a memory leak at every run, and a ControlNet that encodes its picture with the VAE fails.
    """
    grid, masking = (8, 6), kind(SUBJECTS.with_role("subject"), Shaping())
    gc.collect()
    gc.disable()
    try:
        model, report = patched(random_unet(), masking, "1", {"samples": noise(1, grid, seed=4)})
        gone = weakref.ref(model)
        made = sample(model, sampler=sampler, grid=grid)
        del model
        assert gone() is None
    finally:
        gc.enable()
    assert len(report.manipulations(made)) == 1


def test_a_report_without_a_run_says_what_to_connect(toy):
    _, report = patched(toy.model, toy.attention(), "2")
    with pytest.raises(ValueError, match="the report is empty: connect the model output of Masked Latent"):
        report.outputs(latent()["samples"])


def test_a_report_of_several_runs_needs_the_latent_that_is_meant(toy):
    model, report = patched(toy.model, toy.attention(), "2")
    for seed in (1, 2):
        toy.stock(latent(), "euler", model=model, seed=seed, **HOW)
    with pytest.raises(ValueError, match="none of the 2 runs in the report made this latent"):
        report.outputs(latent()["samples"])


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", [AttentionMasking, GradientMasking])
@pytest.mark.parametrize("at", ["0", "1"])
@pytest.mark.parametrize("sampler", ["euler", "uni_pc"])
def test_a_capture_beside_it_sees_each_step_once(comfy, sampler, at, kind, first):
    """The model call that is made for a mask is no step of the sampler, whichever node comes first.

    Nor is any step sampled twice, whether its state is changed in place or the sampler is restarted there.
    """
    model = random_unet().clone()
    capture = observe(model, SUBJECTS) if first else None
    masking = kind(SUBJECTS.with_role("subject"), Shaping())
    report = MaskedLatent(masking, noise(1, (8, 6), seed=4), at, KEEP, REFERENCE).install(model)
    capture = capture or observe(model, SUBJECTS)
    made = sample(model, sampler=sampler, grid=(8, 6))
    assert capture.saliency(made, "subject", "each").labels == ("dog, step 0", "dog, step 1", "dog, step 2")
    assert [m.step for m in report.manipulations(made)] == [int(at)]


# Of the eight steps the first prompt is active in 0 to 3 and the second one in 4 to 7.
RANGES = [
    [conditioning(1)[0][0], {**conditioning(1)[0][1], "start_percent": 0.0, "end_percent": 0.5}],
    [conditioning(3)[0][0], {**conditioning(3)[0][1], "start_percent": 0.5, "end_percent": 1.0}],
]


def test_a_prompt_that_is_not_active_at_a_manipulated_step_is_an_error_not_an_old_map(comfy):
    masking = AttentionMasking(SUBJECTS.with_role("subject"), Shaping())
    model, report = patched(random_unet(), masking, "2")
    made = sample(model, 8, positive=RANGES)
    assert [m.saliency.step for m in report.manipulations(made)] == [1]
    model, _ = patched(random_unet(), masking, "6")
    with pytest.raises(
        ValueError, match=r"no attention to dog was seen at a manipulated step: .*their prompt is not active"
    ):
        sample(model, 8, positive=RANGES)


def test_a_prompt_that_has_just_become_active_is_asked_at_the_manipulated_step(comfy):
    from explainable_latents.nodes.masks import ELMaskFromAttention

    model = random_unet()
    shaping = ("subject", "mean", 0.2, "sum", False, 0.0, 3, 3, 0)
    (masking,) = ELMaskFromAttention.execute(SUBJECTS, *shaping, "all", positive=RANGES[1:]).result
    model, report = patched(model, masking, "4, 5", inside=KEEP, outside=KEEP)
    capture = observe(model, SUBJECTS, positive=RANGES[1:])
    made = sample(model, 8, positive=RANGES)
    seen = capture.runs.of(made).saliencies
    assert [call.step for call in seen] == [4, 5, 6, 7]
    first, second = report.manipulations(made)
    assert (first.saliency.step, second.saliency.step) == (4, 4)
    for entry in (first, second):  # the state was kept, so the sampler sees the same at step 4
        assert torch.equal(entry.saliency.maps, seen[0].select((0,)).maps)


@pytest.mark.parametrize("kind", [AttentionMasking, GradientMasking])
@pytest.mark.parametrize("sampler", ["heun", "dpmpp_2m_cfg_pp", "dpmpp_3m_sde", "uni_pc", "sa_solver"])
def test_masks_of_the_model_at_adjacent_steps_and_the_last_one(comfy, sampler, kind):
    """Samplers that call the model twice, remember steps, hook into guidance, or are restarted."""
    grid = (8, 6)
    masked, report = patched(
        random_unet(), kind(SUBJECTS.with_role("subject"), Shaping()), "1-2, 4", {"samples": noise(1, grid, seed=4)}
    )
    made = sample(masked, 5, sampler=sampler, grid=grid)
    found = report.manipulations(made)
    assert [(m.step, m.saliency.labels) for m in found] == [(1, ("dog",)), (2, ("dog",)), (4, ("dog",))]
    assert all(0 < m.mask.mean() < 1 for m in found)
    assert torch.equal(sample(masked, 5, sampler=sampler, grid=grid), made)
    assert not torch.equal(sample(random_unet(), 5, sampler=sampler, grid=grid), made)


def test_an_empty_latent_as_reference_is_told_before_sampling(toy):
    empty = {"samples": torch.zeros(1, 4, 16, 16)}
    with pytest.raises(ValueError, match=r"the reference latent is empty .* Connect the encoded reference picture"):
        patched(toy.model, given(0.0), "3", empty)
    patched(toy.model, given(0.0), "3", empty, KEEP, KEEP)


def test_a_word_without_effect_is_told_after_the_first_step_not_at_the_manipulated_one(comfy):
    """Where all tokens are the same, attention to each is the same everywhere."""
    calls, model = [], random_unet().clone()
    model.set_model_unet_function_wrapper(
        lambda f, a: calls.append(a["timestep"][0]) or f(a["input"], a["timestep"], **a["c"])
    )
    same = [[torch.zeros(1, 77, 64), {}]]
    masked, _ = patched(model, AttentionMasking(SUBJECTS.with_role("subject"), Shaping()), "3")
    with pytest.raises(ValueError, match="'dog' has the same value everywhere"):
        sample(masked, 4, positive=same)
    assert len(set(map(float, calls))) == 1  # one noise level
    shaping = Shaping(flat_map="all in")
    masked, report = patched(model, AttentionMasking(SUBJECTS.with_role("subject"), shaping), "3")
    made = sample(masked, 4, positive=same)
    assert torch.equal(made, sample(model, 4, positive=same))
    assert [float(m.mask.mean()) for m in report.manipulations(made)] == [1.0]
