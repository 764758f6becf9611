"""Guidance by attention under the host's samplers: what it leaves alone where it is off, and what it changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.guidance import Guidance
from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.sampling.word_guidance import WordGuidance
from tests.host.editing.twins import twin
from tests.host.operations import at
from tests.host.toy_sampling import KEEP, REFERENCE
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample
from tests.tools.thorough import further

STEPS, GRID = 4, (8, 8)
# Steps of random networks are taken small, so that a run is not thrown out of its way.
HOW = Guidance(step_size=2.0)


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet(seed=3)


def guided(model, how: Guidance = HOW, **more):
    """A copy of the model that is guided, and its report."""
    copy = model.clone()
    plan = WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, how, **more)
    return copy, plan.install(copy)


def run(model, sampler: str = "euler", steps: int = STEPS, **how) -> Tensor:
    with torch.inference_mode():
        return sample(model, steps, sampler=sampler, **{"grid": GRID, **how})


@pytest.mark.parametrize("sampler", ["euler", "euler_ancestral", "dpmpp_2m", "uni_pc", "dpm_adaptive"])
@pytest.mark.parametrize(
    "how",
    [{"strength": 0.0}, {"step_size": 0.0}, {"steps": "50-60"}, {"steps": ""}, {"steps": "9", "act_on": "prediction"}],
    ids=str,
)
def test_where_it_is_off_the_picture_is_the_plain_one_bit_for_bit(model, sampler, how):
    copy, report = guided(model, replace(HOW, **how))
    made = run(copy, sampler)
    assert torch.equal(made, run(model, sampler))
    assert report.text(made) == "no step was guided"


def test_without_strength_nothing_but_the_report_is_installed(model):
    copy, _ = guided(model, replace(HOW, strength=0.0))
    assert [key for key, keys in copy.wrappers.items() if any(keys.values())] == ["outer_sample"]


@pytest.mark.parametrize("form", ["state", "prediction"])
def test_a_loss_that_is_zero_already_changes_nothing(model, form):
    """Every word has all attention where only its own tokens are compared: the second softmax of one is 1."""
    one = replace(SUBJECTS, items=SUBJECTS.items[:1], words={"l": (3,), "g": (3,)})
    copy = model.clone()
    loss = AttendAndExcite(compared="prompt words")
    report = WordGuidance("Keep Words", loss, one, replace(HOW, act_on=form)).install(copy)
    made = run(copy, "dpmpp_2m")
    assert torch.equal(made, run(model, "dpmpp_2m"))
    first, *_ = report.text(made).splitlines()
    assert first.endswith("loss of dog 0.000; not changed: the loss is 0 already")


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "dpmpp_sde"])
def test_the_state_is_moved_at_the_first_half_of_the_steps(model, sampler):
    copy, report = guided(model)
    made = run(copy, sampler)
    steps = report.steps(made)
    assert [step.step for step in steps] == [0, 1]
    assert all(step.updates.tolist() == [1] for step in steps)
    assert report.runs.of(made).notes == []
    assert not torch.equal(made, run(model, sampler))


def test_one_step_of_euler_is_what_a_hand_makes_of_it(model):
    """x - η∇ of the first state, in the latent unit: η is 20·c⁻² times the strength; then Euler goes on from there."""
    copy, report = guided(model, Guidance(strength=0.1, steps="0"))
    made = run(copy, steps=1)
    (step,) = report.steps(made)
    sigma = step.sigma
    # with one step to 0 the picture is the prediction for the moved state
    moved, _ = guided(model, Guidance(strength=0.1, steps="0", act_on="prediction"))
    by_prediction, plain = run(moved, steps=1), run(model, steps=1)
    # the prediction moves by σ/(σ - 0) times the state's move, whose quadratic mean the report has as a share of σ
    scale = model.get_model_object("latent_format").scale_factor
    change = ((plain - by_prediction) * scale).square().mean().sqrt()
    assert float(change) == pytest.approx(float(step.changed[0]) * sigma, rel=1e-4)


@pytest.mark.parametrize(
    ("sampler", "form"), [("uni_pc", "auto"), further(("dpm_adaptive", "auto")), ("euler", "prediction")]
)
def test_the_prediction_is_changed_where_the_state_cannot_be_or_shall_not(model, sampler, form):
    copy, report = guided(model, replace(HOW, act_on=form))
    made = run(copy, sampler)
    assert {step.step for step in report.steps(made)} == {0, 1}
    says = "this sampler does not hand over its state, so the prediction was changed instead, once at each step"
    assert report.runs.of(made).notes == ([says] if form == "auto" else [])
    assert not torch.equal(made, run(model, sampler))
    # the next run begins anew
    copy, report = guided(model, replace(HOW, act_on=form))
    assert torch.equal(run(copy, sampler), made)
    assert torch.equal(run(copy, sampler), made)


def test_a_sampler_of_its_own_steps_is_refused_where_the_state_is_asked_for(model):
    with pytest.raises(ValueError, match="the sampler dpm_adaptive chooses its own steps"):
        run(guided(model, replace(HOW, act_on="state"))[0], "dpm_adaptive")


def test_refinement_goes_on_until_the_peak_is_there_or_for_twenty_times(model):
    """A peak that is reached at once, one that is reached later, and one that is not."""
    copy, report = guided(model, replace(HOW, steps="0", step_size=1.0, refinement="0: 0.05"))
    (easy,) = report.steps(run(copy))
    assert easy.updates.tolist() == [1]
    worst = 1 - float(easy.before.max())
    copy, report = guided(model, replace(HOW, steps="0", step_size=1.0, refinement=f"0: {worst + 0.02:.4f}"))
    (later,) = report.steps(run(copy))
    assert 2 < int(later.updates[0]) < 21
    # it moved once more after the measurement that reached the peak, and then as at any other step
    assert float(later.after.max()) < 1 - worst - 0.02 < float(later.before.max())
    copy, report = guided(model, replace(HOW, steps="0", step_size=1e-4, refinement="0: 0.99"))
    (never,) = report.steps(run(copy))
    assert never.updates.tolist() == [21]


def test_a_batch_of_three_is_three_runs(model):
    """Each picture is refined as long as it needs, and stays as it is while others go on."""
    start = noise(3, GRID)
    how = replace(HOW, step_size=1.0, refinement="0: 0.36")
    copy, report = guided(model, how)
    together = run(copy, batch=3, start=start)
    steps = report.steps(together)
    assert len(set(steps[0].updates.tolist())) > 1
    for i in range(3):
        copy, alone = guided(model, how)
        one = run(copy, start=start[i : i + 1])
        assert [step.updates.tolist() for step in alone.steps(one)] == [[int(step.updates[i])] for step in steps]
        # the same sums in another order, over four steps
        torch.testing.assert_close(together[i : i + 1], one, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("form", ["state", "prediction"])
def test_inpainting_changes_nothing_outside_of_its_mask(model, form):
    mask = torch.zeros(1, 1, *GRID)
    mask[..., 2:6, 2:6] = 1
    copy, report = guided(model, replace(HOW, act_on=form))
    made, plain = (run(each, noise_mask=mask) for each in (copy, model))
    outside = mask[0].expand_as(made[0]) == 0
    assert report.steps(made)
    assert torch.equal(made[0][outside], plain[0][outside])
    assert not torch.equal(made, plain)


def test_it_chains_with_itself_a_capture_and_a_masked_latent(model):
    """In any order; a capture reads the sampler's own calls alone, and each handle has its own run."""
    reference, half = noise(1, GRID, seed=4), torch.zeros(1, *GRID)
    half[..., :4] = 1
    plan = MaskedLatent(ImageMasking(half), reference, "3", KEEP, REFERENCE)

    def patched(order: str):
        copy, handles = model.clone(), {}
        for each in order.split():
            if each == "capture":
                handles[each] = observe(copy, SUBJECTS)
            elif each == "masked":
                handles[each] = plan.install(copy)
            else:
                form = replace(HOW, act_on="prediction" if each == "predict" else "auto")
                handles[each] = WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, form).install(copy)
        return copy, handles

    made = {}
    for order in ("guide capture predict masked", "capture masked predict guide"):
        copy, handles = patched(order)
        made[order] = run(copy)
        assert len(handles["capture"].saliency(made[order], "all", "each").labels) == 2 * STEPS
        assert [m.step for m in handles["masked"].manipulations(made[order])] == [3]
        for name in ("guide", "predict"):
            assert [step.step for step in handles[name].steps(made[order])] == [0, 1]
    first, second = made.values()
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    assert not torch.equal(first, run(patched("capture masked")[0]))


@pytest.mark.parametrize("form", ["state", "prediction"])
@pytest.mark.parametrize("first", ["guide", "twin"])
def test_in_a_twin_run_the_target_is_guided_and_the_source_keeps_its_bits(model, form, first):
    def last_state(guide: bool) -> Tensor:
        copy, seen = model.clone(), []
        plan = WordGuidance("Keep Words", AttendAndExcite(), SUBJECTS, replace(HOW, act_on=form))
        if guide and first == "guide":
            plan.install(copy)
        copy = twin(copy, note=seen)
        if guide and first == "twin":
            plan.install(copy)
        run(copy)
        return seen[-1]

    (source, target), (plain_source, plain_target) = last_state(True), last_state(False)
    assert torch.equal(source, plain_source)
    assert not torch.allclose(target, plain_target, atol=1e-2)


def test_a_capture_sees_the_call_that_the_sampler_makes_and_not_the_measured_one(model):
    """Where the prediction is changed, both are made at the same state: what was captured is what was sampled with."""
    copy, _ = guided(model, replace(HOW, act_on="prediction", steps="0"))
    capture = observe(copy, SUBJECTS)
    plain = model.clone()
    of_plain = observe(plain, SUBJECTS)
    found = capture.saliency(run(copy, steps=2), "all", "each").maps
    expected = of_plain.saliency(run(plain, steps=2), "all", "each").maps
    assert torch.equal(found[:2], expected[:2])
    assert not torch.equal(found[2:], expected[2:])


def test_cancel_in_the_middle_of_refinement_ends_the_run_and_leaves_nothing(model):
    from comfy.model_management import InterruptProcessingException, interrupt_current_processing

    how = replace(HOW, steps="0", step_size=1e-4, refinement="0: 0.99")
    copy, report = guided(model, how)
    whole = run(guided(model, how)[0])
    with pytest.raises(InterruptProcessingException), at("backward", 60, interrupt_current_processing):
        run(copy)
    assert report.runs.current is None
    assert report.runs.kept == []
    assert all("forward" not in vars(module) for module in model.model.diffusion_model.modules())
    assert torch.equal(run(copy), whole)


def test_a_prompt_that_is_active_later_is_guided_then(model):
    (context, more), *_ = conditioning(1)
    (first, _), *_ = conditioning(5)
    whole = [[first, {**more, "end_percent": 0.2}], [context, {**more, "start_percent": 0.2}]]
    copy, report = guided(model, replace(HOW, steps="0-100%"), positive=conditioning(1))
    lines = report.text(run(copy, positive=whole)).splitlines()
    assert "skipped: the prompt of the words is not active at this noise level (a timestep range)" in lines[0]
    assert "changed by" in lines[-1]


def test_a_flow_model_has_the_relative_unit_alone(model):
    import comfy.model_sampling

    class Flow(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    copy, _ = guided(model)
    copy.add_object_patch("model_sampling", Flow(model.model.model_config))
    with pytest.raises(ValueError, match=r"unit 'latent' does not fit a flow model.*choose 'relative'"):
        run(copy)
    copy, report = guided(model, replace(HOW, unit="relative", step_size=0.05, schedule="constant"))
    copy.add_object_patch("model_sampling", Flow(model.model.model_config))
    for step in report.steps(run(copy)):
        assert float(step.changed[0]) == pytest.approx(0.05, rel=1e-4)
