"""Whose attention is captured: the positive prompt's rows only, at their place in the frame, and of the right run."""

import logging

import pytest
import torch

from explainable_latents.nodes.core.attention.aggregate import aggregate, normalise
from explainable_latents.nodes.host.attention.observer import observe
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet, sample


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def captured(model, options=None, **how):
    """The run that sampling left in a capture."""
    observed = model.clone()
    capture = observe(observed, SUBJECTS, **(options or {}))
    sample(observed, **how)
    return capture.runs.kept[-1]


def first_map(model, options=None, **how):
    """The first call's map in multiples of its mean."""
    maps = captured(model, options, **({"steps": 1} | how)).saliencies[0].maps
    return maps * maps.shape[-1] * maps.shape[-2]


@pytest.fixture(scope="module")
def plain(model):
    return first_map(model)


def test_other_prompts_give_other_maps(model, plain):
    assert not torch.allclose(first_map(model, positive=conditioning(2)), plain, atol=1e-2)


def combined(*prompts):
    return [entry for prompt in prompts for entry in prompt]


def test_of_several_prompts_the_first_counts_and_the_log_says_so(model, plain, caplog):
    with caplog.at_level(logging.WARNING, "explainable_latents"):
        maps = first_map(model, positive=combined(conditioning(1), conditioning(5)))
    assert torch.allclose(maps, plain, atol=1e-5)
    assert "2 positive conditionings are combined" in caplog.text
    assert "the 1 that hold another prompt" in caplog.text


def test_a_chosen_prompt_is_found_among_several(model, plain, caplog):
    both = combined(conditioning(5), conditioning(1))
    maps = first_map(model, {"positive": conditioning(1)}, positive=both)
    assert torch.allclose(maps, plain, atol=1e-5)
    assert not caplog.records
    run = captured(model, {"positive": conditioning(9)}, positive=both)
    assert run.saliencies == []
    assert "none of the positive conditionings holds the chosen prompt" in caplog.text


def test_concatenated_prompts_count_with_the_first_ones_positions(model):
    import nodes

    (longer,) = nodes.ConditioningConcat().concat(conditioning(1), conditioning(5))
    assert longer[0][0].shape[1] == 154
    reference = first_map(model, positive=longer, negative=conditioning(2, 2))
    assert torch.allclose(first_map(model, positive=longer), reference, atol=1e-5)


def test_timestep_ranges_leave_maps_only_where_the_prompt_is_active(model):
    import nodes

    (early,) = nodes.ConditioningSetTimestepRange().set_range(conditioning(1), 0.0, 0.5)
    (late,) = nodes.ConditioningSetTimestepRange().set_range(conditioning(5), 0.5, 1.0)
    run = captured(model, steps=8, positive=combined(early, late))
    steps = [call.step for call in run.saliencies]
    assert steps == list(range(len(steps)))
    assert 0 < len(steps) < 8
    chosen = captured(model, {"positive": conditioning(5)}, steps=8, positive=combined(early, late))
    assert sorted(steps + [call.step for call in chosen.saliencies]) == list(range(8))


def test_percent_limits_the_steps(model):
    parts = [(0.0, 0.3), (0.3, 0.7), (0.7, 1.0)]
    runs = [captured(model, {"start_percent": a, "end_percent": b}, steps=12) for a, b in parts]
    found = [[call.step for call in run.saliencies] for run in runs]
    assert all(found)
    assert [step for steps in found for step in steps] == list(range(12))


def test_a_mask_counts_where_it_is(model, plain):
    import nodes

    mask = torch.zeros(1, 128, 128)
    mask[:, :64] = 1
    (upper,) = nodes.ConditioningSetMask().append(conditioning(1), mask, "default", 1.0)
    maps = captured(model, steps=1, positive=combined(upper, conditioning(5))).saliencies[0].maps
    expected = plain.clone()
    expected[..., 8:, :] = 0
    assert torch.allclose(maps, normalise(expected), atol=1e-6)


def guided(model, kind):
    """First map under a stock guider that orders the conditionings in its own way."""
    import comfy.samplers
    from comfy_extras import nodes_custom_sampler, nodes_perpneg

    observed = model.clone()
    capture = observe(observed, SUBJECTS)
    positive, negative, third = conditioning(1), conditioning(2), conditioning(5)
    if kind == "basic":
        guider = nodes_custom_sampler.BasicGuider.execute(observed, positive)[0]
    elif kind == "perp-neg":
        guider = nodes_perpneg.PerpNegGuider.execute(observed, positive, negative, third, 4.0, 1.0)[0]
    else:
        guider = nodes_custom_sampler.DualCFGGuider.execute(observed, positive, third, negative, 4.0, 2.0, kind)[0]
    sampler = comfy.samplers.sampler_object("euler")
    guider.sample(
        noise(), torch.zeros(1, 4, 16, 16), sampler, torch.tensor([14.6, 5.0, 0.0]), disable_pbar=True, seed=0
    )
    return capture.runs.kept[-1].saliencies


@pytest.mark.parametrize("kind", ["basic", "perp-neg", "regular", "nested"])
def test_guiders_that_order_prompts_in_their_own_way(model, kind):
    calls = guided(model, kind)
    assert len(calls) == 2
    assert torch.allclose(calls[0].maps, guided(model, "basic")[0].maps, atol=1e-6)


def test_chosen_layers_only(model):
    run = captured(model, {"layers": "16x16, middle"}, steps=1)
    assert set(run.layers) == {
        ("input.1.0", (16, 16)), ("middle.0.0", (8, 8)), ("output.2.0", (16, 16)), ("output.3.0", (16, 16))
    }  # fmt: skip
    assert torch.equal(run.saliencies[0].maps, aggregate(list(run.layers.values()), (16, 16)))
    assert list(captured(model, {"layers": "last"}, steps=1).layers) == [("output.3.0", (16, 16))]


def test_layers_that_change_their_grid_between_steps(model):
    """PatchModelAddDownscale makes the inner grid smaller for the first part of the schedule."""
    from comfy_extras.nodes_model_downscale import PatchModelAddDownscale

    patched = PatchModelAddDownscale.execute(model, 1, 2.0, 0.0, 0.35, True, "bicubic", "bicubic")[0]
    run = captured(patched, steps=6)
    assert len(run.saliencies) == 6
    assert {grid for name, grid in run.layers if name == "middle.0.0"} == {(4, 4), (8, 8)}


def test_each_step_and_each_layer_has_a_labelled_map(model):
    observed = model.clone()
    capture = observe(observed, SUBJECTS)
    made = sample(observed)
    assert capture.saliency(made, "subject", "each").labels == ("dog, step 0", "dog, step 1", "dog, step 2")
    layers = capture.saliency(made, "scene", "mean", each_layer=True)
    assert layers.maps.shape == (7, 1, 16, 16)
    assert layers.labels[1] == "beach, input.3.0 (8x8)"
