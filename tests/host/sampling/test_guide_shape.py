"""Words moved and resized while sampling, relative to a plain run: what has to stay as it is, and what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.layout import Box
from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.box_losses import BoxLoss
from explainable_latents.nodes.core.methods.guidance import Guidance
from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.core.methods.self_guidance import SelfGuidance
from explainable_latents.nodes.core.methods.word_places import Boxes
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
from tests.host.editing.twins import twin
from tests.host.toy_sampling import KEEP, REFERENCE
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample
from tests.tools.thorough import further

STEPS, GRID = 4, (8, 8)
MOVE = SelfGuidance(frozenset({0}), x=0.2, y=-0.1, amount=1.5, keep_shape=0.5)
STAY = SelfGuidance(frozenset({0}), keep_shape=1.0)
LOOK = replace(MOVE, keep_appearance=1.0)
HOW = Guidance(1.0, "0-50%", "relative", 0.05, "constant")


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet(seed=3)


def guided(model, how: Guidance = HOW, loss: SelfGuidance = MOVE, **more: Any):
    """A copy of the model that is guided, and its report."""
    copy = model.clone()
    return copy, WordGuidance("Guide Shape", loss, SUBJECTS, how, **more).install(copy)


def run(model, sampler: str = "euler", **how: Any) -> Tensor:
    with torch.inference_mode():
        return sample(model, STEPS, sampler=sampler, **{"grid": GRID, **how})


def calls_of(model) -> list[int]:
    """Will have an entry for each call of the network."""
    seen = []
    model.set_model_unet_function_wrapper(
        lambda apply, given: seen.append(len(given["input"])) or apply(given["input"], given["timestep"], **given["c"])
    )
    return seen


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", further("dpm_adaptive")])
@pytest.mark.parametrize("how", [{"strength": 0.0}, {"steps": ""}, {"steps": "7"}], ids=str)
def test_where_it_is_off_it_is_the_plain_picture_bit_for_bit_and_costs_nothing(model, sampler, how):
    (copy, report), plain = guided(model, replace(HOW, **how)), model.clone()
    calls, plain_calls = calls_of(copy), calls_of(plain)
    made = run(copy, sampler)
    assert torch.equal(made, run(plain, sampler))
    assert calls == plain_calls
    assert report.text(made) == "no step was guided"


@pytest.mark.parametrize("form", ["state", "prediction"])
@pytest.mark.parametrize(
    ("sampler", "loss"),
    [
        *((sampler, STAY) for sampler in ("euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_sde")),
        ("euler", replace(STAY, keep_appearance=1.0)),
        ("dpmpp_2m", replace(STAY, keep_shape=0.0, keep_appearance=1.0, position="free", size="free")),
    ],
)
def test_what_is_to_stay_as_in_the_plain_run_is_the_plain_run_bit_for_bit(model, sampler, form, loss):
    """So the run made beforehand has the same states, noise and all, and leaves no trace in the one that counts."""
    copy, report = guided(model, replace(HOW, act_on=form, steps="0-100%"), loss)
    made = run(copy, sampler)
    assert torch.equal(made, run(model, sampler))
    steps = report.steps(made)
    assert {step.step for step in steps} == set(range(STEPS))
    if form == "state":
        assert len(steps) == STEPS
    assert all(line.endswith("not changed: the loss is 0 already") for line in report.text(made).splitlines())


@pytest.mark.parametrize(
    ("sampler", "form"), [("uni_pc", "auto"), further(("dpm_adaptive", "auto")), ("heun", "prediction")]
)
def test_where_the_state_is_not_handed_over_the_prediction_is_compared_and_changed(model, sampler, form):
    copy, report = guided(model, replace(HOW, act_on=form))
    made = run(copy, sampler)
    steps = [step for step in report.steps(made) if step.before is not None]
    assert {step.step for step in steps} == {0, 1}
    # at the first step the words are where they are in the plain run: what is asked for is all that is missing
    assert float(steps[0].before[0]) >= 0.3 - 1e-4
    assert float(steps[0].before[1]) == pytest.approx(0, abs=1e-4)
    assert not torch.equal(made, run(model, sampler))
    assert torch.equal(run(copy, sampler), made)


@pytest.mark.parametrize(
    "loss",
    [
        replace(MOVE, keep_others=0.0),
        SelfGuidance(frozenset({0, 1}), "at", 0.3, 0.6, "share", 0.2),
        SelfGuidance(frozenset({0}), "free", size="times", amount=0.5, keep_others=0.0),
        SelfGuidance(frozenset({1}), x=-0.2, size="free", keep_others=0.0),
    ],
    ids=("move", "at", "resize", "move scene"),
)
def test_the_loss_falls_with_every_move(model, loss):
    copy, report = guided(model, replace(HOW, step_size=0.005, steps="0", repeats="5"), loss)
    (step,) = report.steps(run(copy))
    assert step.updates.tolist() == [5]
    assert float(step.after.sum()) < float(step.before.sum())


def test_an_absolute_place_needs_no_plain_run(model):
    absolute = SelfGuidance(frozenset({0}), "at", 0.5, 0.5, "free", keep_others=0.0)
    counts = []
    for loss in (absolute, MOVE):
        copy, _ = guided(model, HOW, loss)
        calls = calls_of(copy)
        run(copy)
        counts.append(len(calls))
    # two measurements; beside that the plain run until the second guided step, where it is measured twice, too
    assert counts == [STEPS + 2, STEPS + 2 + 1 + 2]


@pytest.mark.parametrize("loss", [MOVE, LOOK], ids=["shape", "look"])
def test_a_batch_of_three_is_three_runs(model, loss):
    start = noise(3, GRID)
    copy, report = guided(model, replace(HOW, repeats="2"), loss)
    together = run(copy, batch=3, start=start)
    assert all(step.updates.tolist() == [2, 2, 2] for step in report.steps(together))
    for i in range(3):
        one = run(guided(model, replace(HOW, repeats="2"), loss)[0], start=start[i : i + 1])
        # the same sums in another order, over four steps
        torch.testing.assert_close(together[i : i + 1], one, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("loss", [MOVE, LOOK], ids=["shape", "look"])
def test_networks_in_half_precision_are_guided_too(comfy, dtype, loss):
    half, whole = random_unet(seed=3, dtype=dtype), random_unet(seed=3)
    (copy, report), (other, of_other) = guided(half, loss=loss), guided(whole, loss=loss)
    made, expected = run(copy), run(other)
    assert made.isfinite().all()
    for step, exact in zip(report.steps(made), of_other.steps(expected), strict=True):
        torch.testing.assert_close(step.before, exact.before, atol=0.1, rtol=0.1)
        assert step.updates.tolist() == [1]


@pytest.mark.parametrize(
    ("form", "grid", "loss"),
    [
        ("state", (8, 8), MOVE),
        ("prediction", (8, 8), MOVE),
        ("state", (7, 9), MOVE),
        ("prediction", (7, 9), MOVE),
        ("state", (7, 9), LOOK),
    ],
)
def test_inpainting_changes_nothing_outside_of_its_mask(model, form, grid, loss):
    mask = torch.zeros(1, 1, *grid)
    mask[..., 2:6, 2:6] = 1
    copy, report = guided(model, replace(HOW, act_on=form), loss)
    made, plain = (run(each, noise_mask=mask, grid=grid) for each in (copy, model))
    outside = mask[0].expand_as(made[0]) == 0
    assert report.steps(made)
    assert torch.equal(made[0][outside], plain[0][outside])
    assert not torch.equal(made, plain)


def test_a_prompt_with_an_area_is_moved_inside_of_it(model):
    """The state is moved inside of the area, by one step to the end; what is compared is that part of the picture."""
    area = [[conditioning(1)[0][0], {"area": (8, 4, 0, 4)}], *conditioning(5)]
    copy, report = guided(model, replace(HOW, steps="0", act_on="prediction"), positive=[[conditioning(1)[0][0], {}]])
    with torch.inference_mode():
        made, plain = (sample(each, 1, grid=GRID, positive=area) for each in (copy, model))
    (step,) = report.steps(made)
    assert float(step.before[0]) >= 0.3 - 1e-4
    assert bool((made != plain)[..., 4:].any())
    assert torch.equal(made[..., :4], plain[..., :4])


def test_to_keep_the_look_is_measured_beside_the_rest_and_counts(model):
    """At the first step the look is the plain run's: the loss is the same as without. Then it goes on otherwise."""
    (copy, report), (other, of_other) = guided(model, loss=LOOK), guided(model)
    made, without = run(copy), run(other)
    torch.testing.assert_close(report.steps(made)[0].before, of_other.steps(without)[0].before)
    assert not torch.equal(report.steps(made)[1].before, of_other.steps(without)[1].before)
    assert not torch.equal(made, without)
    assert torch.equal(run(guided(model, loss=replace(LOOK, keep_appearance=0.0))[0]), without)


def test_a_look_that_cannot_be_seen_is_refused_with_the_name_of_what_hides_it(comfy, model):
    """By a node that leaves out what others put before the decoder's blocks; likewise where nothing is seen at all."""

    def drops_patches(executor, x, timesteps, context, y, control, transformer_options, **more):
        kept = {kind: each for kind, each in transformer_options["patches"].items() if "output_block" not in kind}
        return executor(x, timesteps, context, y, control, {**transformer_options, "patches": kept}, **more)

    copy, _ = guided(model, loss=LOOK)
    copy.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "other", drops_patches)
    with pytest.raises(ValueError, match=r"block output\.2, which keep_appearance needs.*drops_patches of tests\.host"):
        run(copy)
    copy, _ = guided(model)
    copy.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "other", skips_the_network)
    with pytest.raises(ValueError, match=r"replaced by skips_the_network of tests\.host.*connect the model without"):
        run(copy)


def skips_the_network(executor, x, *args, **kwargs):
    """What a node does that takes an older prediction for this one."""
    return torch.zeros_like(x)


def test_split_calls_are_joined_ones(model, monkeypatch):
    """Two overlapping areas with the prompt, in one call of the network or two."""
    (text, _), *_ = conditioning(1)
    areas = [[text, {"area": (8, 5, 0, 0), "strength": 1.0}], [text, {"area": (8, 5, 0, 3), "strength": 1.0}]]
    found = []
    for memory in (0.0, 1e30):
        monkeypatch.setattr(model.model, "memory_required", lambda *args, memory=memory, **kwargs: memory or 1e3)
        found.append(run(guided(model)[0], positive=areas, batch=2))
    # the same sums in another order, over four steps
    torch.testing.assert_close(*found, atol=2e-3, rtol=1e-3)


def test_a_prompt_that_is_active_later_is_guided_then(model):
    (context, more), *_ = conditioning(1)
    (first, _), *_ = conditioning(5)
    whole = [[first, {**more, "end_percent": 0.2}], [context, {**more, "start_percent": 0.2}]]
    copy, report = guided(model, replace(HOW, steps="0-100%"), positive=conditioning(1))
    lines = report.text(run(copy, positive=whole)).splitlines()
    assert "skipped: the run without guidance, with which it is compared, had no attention to the words" in lines[0]
    assert "changed by" in lines[-1]


def test_it_chains_with_other_guidance_a_capture_and_a_masked_latent(model):
    """In any order; the run beforehand is nobody's: captures, reports and masks know of the sampler's own alone."""
    reference, half = noise(1, GRID, seed=4), torch.zeros(1, *GRID)
    half[..., :4] = 1
    places = Boxes(((Box("dog", 0, 0, 0.5, 0.5),), (Box("beach", 0.25, 0.5, 1, 1),)))
    plans = {
        "masked": MaskedLatent(ImageMasking(half), reference, "3", KEEP, REFERENCE),
        "keep": WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, Guidance(step_size=2.0)),
        "place": WordGuidance("Place Words", BoxLoss(places), SUBJECTS, replace(HOW, act_on="prediction")),
        "shape": WordGuidance("Guide Shape", MOVE, SUBJECTS, replace(HOW, repeats="2")),
    }
    alone = run(guided(model)[0])
    for order in ("shape capture keep masked place", "place keep masked capture shape"):
        copy, handles = model.clone(), {}
        for each in order.split():
            handles[each] = observe(copy, SUBJECTS) if each == "capture" else plans[each].install(copy)
        made = run(copy)
        assert len(handles["capture"].saliency(made, "all", "each").labels) == 2 * STEPS
        assert [m.step for m in handles["masked"].manipulations(made)] == [3]
        for name, updates in (("shape", 2), ("keep", 1), ("place", 1)):
            steps = handles[name].steps(made)
            assert [(step.step, step.updates.tolist()) for step in steps] == [(0, [updates]), (1, [updates])]
        assert not torch.equal(made, alone)


def test_in_a_twin_run_the_source_keeps_its_bits(model):
    def last_state(guide: bool) -> Tensor:
        copy, seen = model.clone(), []
        if guide:
            WordGuidance("Guide Shape", MOVE, SUBJECTS, HOW).install(copy)
        copy = twin(copy, note=seen)
        run(copy)
        return seen[-1]

    (source, target), (plain_source, plain_target) = last_state(True), last_state(False)
    assert torch.equal(source, plain_source)
    assert not torch.allclose(target, plain_target, atol=1e-2)


@pytest.mark.parametrize("call", [2, 7])
def test_cancel_beforehand_or_in_the_run_leaves_nothing(model, call):
    from comfy.model_management import InterruptProcessingException, interrupt_current_processing

    copy, report = guided(model, replace(HOW, steps="0-100%"))
    whole = run(guided(model, replace(HOW, steps="0-100%"))[0])
    calls = iter(range(100))

    def apply(function, given):
        if next(calls) == call:
            interrupt_current_processing()
        return function(given["input"], given["timestep"], **given["c"])

    cancelled = copy.clone()
    cancelled.set_model_unet_function_wrapper(apply)
    with pytest.raises(InterruptProcessingException):
        run(cancelled)
    assert report.runs.current is None
    assert report.runs.kept == []
    assert torch.equal(run(copy), whole)
