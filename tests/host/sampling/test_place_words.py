"""Words put into places while sampling: against published loops written here, and what has to stay as it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.layout import Box
from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.box_losses import LOSSES, BoxLoss
from explainable_latents.nodes.core.methods.guidance import Guidance
from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.core.methods.word_places import Boxes, Masks
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.autograd.latent_gradient import LatentGradient
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
from tests.host.toy_sampling import KEEP, REFERENCE
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample

STEPS, GRID = 4, (8, 8)
PLACES = Boxes(((Box("dog", 0, 0, 0.5, 0.5),), (Box("beach", 0.25, 0.5, 1, 1),)))
BOX_SHARE = BoxLoss(PLACES)
# As published, but for the strength: a random network's attention changes more with its latent.
LAYOUT = Guidance(0.02, "0-100%", "variance", 30.0, "constant", repeats="3")


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet(seed=3)


def guided(model, how: Guidance = LAYOUT, loss: BoxLoss = BOX_SHARE, **more: Any):
    """A copy of the model that is guided, and its report."""
    copy = model.clone()
    return copy, WordGuidance("Place Words", loss, SUBJECTS, how, **more).install(copy)


def run(model, sampler: str = "euler", **how: Any) -> Tensor:
    with torch.inference_mode():
        return sample(model, STEPS, sampler=sampler, **{"grid": GRID, **how})


def by_hand(model, start: Tensor, loss: BoxLoss, how: Guidance, most: list[int]) -> tuple[Tensor, list[list[float]]]:
    """Layout guidance as its authors wrote it, around Euler: the state at the end, and the losses of each step.

    Their `loss` outlives the step: once it is small enough, no step is guided any more.
    """
    import comfy.samplers

    patcher, seen = model.clone(), []
    gradient = LatentGradient(patcher, "explainable_latents.test", SUBJECTS, loss)

    def function(model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, **_: Any) -> Tensor:
        remaining = torch.inf
        for i in range(len(sigmas) - 1):
            sigma, seen_here, levels = sigmas[i], [], sigmas[i] * x.new_ones(len(x))
            while remaining > how.until and len(seen_here) < most[i]:
                measured = gradient.measure(lambda x=x, levels=levels: model(x, levels, **extra_args))
                x = x - how.strength * how.step_size * sigma**2 * measured.gradient
                remaining = float(measured.total)
                seen_here.append(remaining)
            seen.append(seen_here)
            x = x + (sigmas[i + 1] - sigma) * (x - model(x, levels, **extra_args)) / sigma
        return x

    sigmas = comfy.samplers.calculate_sigmas(patcher.get_model_object("model_sampling"), "normal", STEPS)
    guider = comfy.samplers.CFGGuider(patcher)
    guider.set_conds(conditioning(1), conditioning(2))
    guider.set_cfg(4.0)
    with torch.inference_mode():
        made = guider.sample(start, torch.zeros_like(start), comfy.samplers.KSAMPLER(function), sigmas, seed=0)
    return made, seen


def test_it_repeats_and_stops_for_good_as_published(model):
    """A picture of a batch stops when it would alone; the others go on."""
    start, most = noise(3, GRID), [3, 3, 2, 1]
    how = replace(LAYOUT, repeats="0: 3, 25: 2, 38: 1", stop_for_good=True)
    # such that the pictures stop at different measurements, one of them never
    finest = [by_hand(model, one, BOX_SHARE, how, most)[1] for one in start.split(1)]
    limits = sorted(min(each for step in seen for each in step) for seen in finest)
    how = replace(how, until=(limits[1] + limits[2]) / 2)
    expected, seen = zip(*(by_hand(model, one, BOX_SHARE, how, most) for one in start.split(1)), strict=True)
    counts = [[len(step) for step in of_picture] for of_picture in seen]
    assert sorted(sum(each) < sum(most) for each in counts) == [False, True, True]
    copy, report = guided(model, how)
    made = run(copy, batch=3, start=start)
    # the same sums in another order, over four steps
    torch.testing.assert_close(made, torch.cat(expected), atol=2e-3, rtol=1e-3)
    for i, step in enumerate(report.steps(made)):
        assert step.updates.tolist() == [each[i] for each in counts]
        firsts = [of_picture[i][0] if of_picture[i] else None for of_picture in seen]
        for number, first in enumerate(firsts):
            if first is not None:
                assert float(step.before[:, number].mean()) == pytest.approx(first, rel=1e-3)
    stopped = next(number for number, each in enumerate(counts) if each[-1] == 0)
    lines = report.text(made).splitlines()
    (line,) = (each for each in lines if each.startswith("step 3") and f"picture {stopped + 1}" in each)
    assert line.endswith("not changed: the loss is small enough")


def test_when_every_picture_has_stopped_the_rest_of_the_run_is_the_plain_one_and_costs_nothing(model):
    called = {}
    for name, until in (("never", 0.0), ("at once", 1.0)):
        count = 0
        copy, report = guided(model, replace(LAYOUT, until=until, stop_for_good=True))

        def counted(apply: Callable, given: dict) -> Tensor:
            nonlocal count
            count += 1
            return apply(given["input"], given["timestep"], **given["c"])

        copy.set_model_unet_function_wrapper(counted)
        made = run(copy)
        called[name] = count
    assert called == {"never": STEPS + 3 * STEPS, "at once": STEPS + 1}
    first, *rest = report.text(made).splitlines()
    assert "changed by" in first
    skipped = "skipped: the loss of every picture has been below 1, and was to stop for good"
    assert [line.partition(", ")[2] for line in rest] == [skipped] * (STEPS - 1)


def test_else_it_looks_at_each_step_and_moves_what_has_left_its_place_again(model):
    """Only what is in order from the start is the plain picture; a loss between two of the run's is left and met."""
    copy, report = guided(model, replace(LAYOUT, until=1.0))
    made = run(copy)
    assert torch.equal(made, run(model))
    lines = report.text(made).splitlines()
    assert len(lines) == STEPS
    assert all(line.endswith("not changed: the loss is small enough") for line in lines)
    firsts = [float(step.before.mean()) for step in report.steps(made)]
    assert len({round(each, 4) for each in firsts}) == STEPS
    between = (min(firsts) + max(firsts)) / 2
    copy, report = guided(model, replace(LAYOUT, until=between, strength=1e-6))
    steps = report.steps(run(copy))
    assert [int(step.updates[0]) for step in steps] == [3 if first >= between else 0 for first in firsts]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc"])
def test_without_strength_it_is_the_plain_picture_bit_for_bit(model, sampler):
    copy, report = guided(model, replace(LAYOUT, strength=0.0))
    assert [key for key, keys in copy.wrappers.items() if any(keys.values())] == ["outer_sample"]
    made = run(copy, sampler)
    assert torch.equal(made, run(model, sampler))
    assert report.text(made) == "no step was guided"


RELATIVE = replace(LAYOUT, strength=1.0, unit="relative", step_size=0.05, repeats="2", steps="0-50%")


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "uni_pc"])
def test_each_loss_falls_with_the_steps_that_it_guides(model, kind, sampler):
    """Beside a run whose state is moved by nothing to speak of; also where the prediction is changed instead."""
    still = replace(RELATIVE, step_size=1e-7)
    losses = []
    for how in (RELATIVE, still):
        copy, report = guided(model, replace(how, steps="0-100%"), BoxLoss(PLACES, kind))
        steps = report.steps(run(copy, sampler))
        losses.append(float(BoxLoss(PLACES, kind).of_picture(steps[-1].before)))
    assert losses[0] < losses[1]


@pytest.mark.parametrize("kind", LOSSES)
def test_a_batch_of_three_is_three_runs(model, kind):
    start, loss = noise(3, GRID), BoxLoss(PLACES, kind)
    copy, report = guided(model, RELATIVE, loss)
    together = run(copy, batch=3, start=start)
    assert all(step.updates.tolist() == [2, 2, 2] for step in report.steps(together))
    for i in range(3):
        one = run(guided(model, RELATIVE, loss)[0], start=start[i : i + 1])
        # the same sums in another order, over four steps
        torch.testing.assert_close(together[i : i + 1], one, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("form", ["state", "prediction"])
@pytest.mark.parametrize("grid", [(8, 8), (7, 9)])
def test_inpainting_changes_nothing_outside_of_its_mask(model, form, grid):
    mask = torch.zeros(1, 1, *grid)
    mask[..., 2:6, 2:6] = 1
    copy, report = guided(model, replace(RELATIVE, act_on=form))
    made, plain = (run(each, noise_mask=mask, grid=grid) for each in (copy, model))
    outside = mask[0].expand_as(made[0]) == 0
    assert report.steps(made)
    assert torch.equal(made[0][outside], plain[0][outside])
    assert not torch.equal(made, plain)


@pytest.mark.parametrize("kind", LOSSES)
def test_masks_are_boxes_of_any_shape(model, kind):
    """Masks of the boxes, at eight times the latent's size, give the boxes' picture bit for bit."""
    masks = Masks(PLACES.shares((64, 64)))
    by_box, by_mask = (run(guided(model, RELATIVE, BoxLoss(each, kind))[0]) for each in (PLACES, masks))
    assert torch.equal(by_box, by_mask)


def test_a_prompt_with_an_area_is_placed_inside_of_it(model):
    """The places are those of the picture; the state is moved inside of the area, by one step to the end."""
    area = [[conditioning(1)[0][0], {"area": (8, 4, 0, 4)}], *conditioning(5)]
    how = replace(RELATIVE, steps="0", repeats="1", act_on="prediction")
    for box, is_in in ((Box("dog", 0.5, 0, 1, 0.5), True), (Box("dog", 0, 0, 0.5, 1), False)):
        copy, report = guided(model, how, BoxLoss(Boxes(((box,), (box,)))), positive=[[conditioning(1)[0][0], {}]])
        with torch.inference_mode():
            made, plain = (sample(each, 1, grid=GRID, positive=area) for each in (copy, model))
        (step,) = report.steps(made)
        assert bool((made != plain)[..., 4:].any()) == is_in
        assert torch.equal(made[..., :4], plain[..., :4])
        assert step.before.eq(1).all() != is_in
        reason = "no change of the latent, where it may change, would lessen the loss"
        assert report.text(made).endswith(f"not changed: {reason}") != is_in


@pytest.mark.parametrize("kind", LOSSES)
def test_split_calls_are_joined_ones(model, monkeypatch, kind):
    """Two overlapping areas with the prompt, in one call of the network or two; each sees its part of the places."""
    (text, _), *_ = conditioning(1)
    areas = [[text, {"area": (8, 5, 0, 0), "strength": 1.0}], [text, {"area": (8, 5, 0, 3), "strength": 1.0}]]
    found = []
    for memory in (0.0, 1e30):
        monkeypatch.setattr(model.model, "memory_required", lambda *args, memory=memory, **kwargs: memory or 1e3)
        copy, report = guided(model, RELATIVE, BoxLoss(PLACES, kind))
        found.append((run(copy, positive=areas, batch=2), report))
    (joined, of_joined), (split, of_split) = found
    # the same sums in another order, over four steps
    torch.testing.assert_close(joined, split, atol=2e-3, rtol=1e-3)
    for one, other in zip(of_joined.steps(joined), of_split.steps(split), strict=True):
        torch.testing.assert_close(one.before, other.before, rtol=1e-3, atol=1e-4)


def test_it_chains_with_keep_words_a_capture_and_a_masked_latent(model):
    """In any order; the capture reads the sampler's own calls alone, and each handle has its own run."""
    reference, half = noise(1, GRID, seed=4), torch.zeros(1, *GRID)
    half[..., :4] = 1
    masked = MaskedLatent(ImageMasking(half), reference, "3", KEEP, REFERENCE)
    keep = WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, Guidance(step_size=2.0))
    place = WordGuidance("Place Words", BOX_SHARE, SUBJECTS, RELATIVE)
    made = {}
    for order in ("place capture keep masked", "keep masked capture place"):
        copy, handles = model.clone(), {}
        for each in order.split():
            if each == "capture":
                handles[each] = observe(copy, SUBJECTS)
            else:
                handles[each] = {"place": place, "keep": keep, "masked": masked}[each].install(copy)
        made[order] = run(copy)
        assert len(handles["capture"].saliency(made[order], "all", "each").labels) == 2 * STEPS
        assert [m.step for m in handles["masked"].manipulations(made[order])] == [3]
        for name, updates in (("place", 2), ("keep", 1)):
            steps = handles[name].steps(made[order])
            assert [(step.step, step.updates.tolist()) for step in steps] == [(0, [updates]), (1, [updates])]
    alone = run(guided(model, RELATIVE)[0])
    assert not any(torch.equal(each, alone) for each in made.values())
