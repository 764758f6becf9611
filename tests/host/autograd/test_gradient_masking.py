"""Masks from Abs-Grad-SAM while the host's sampler runs a small random UNet."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.maps.filters import dilate, gaussian_smooth
from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import GradientMasking
from explainable_latents.nodes.host.one_call import gradient_saliency
from explainable_latents.nodes.host.sampling.ksampler import sample_masked
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.core.gradients.last_layers import relative_error
from tests.host.autograd.test_gradients import out_of_memory
from tests.host.operations import at
from tests.host.plain_sampler import sampled_with_masks
from tests.host.unets import SUBJECTS, conditioning, noise, random_unet

KEEP, REFERENCE = Policy("keep"), Policy("reference")
STEPS = 6
PAPER = Shaping("mean + k·std", 0.5, "union", smooth_sigma=6.0, dilate_iterations=1)


@pytest.fixture
def model(comfy):
    return random_unet("SD15", seed=1)


def settings(batch=1, grid=(10, 12), cfg=3.0, negative=None) -> tuple:
    """What the KSampler is told, in its order."""
    start = {"samples": noise(batch, grid)}
    return 7, STEPS, cfg, "euler", "normal", conditioning(1), negative or conditioning(2), start, 0.7


def run(model, masking, at="2, 4", batch=1, grid=(10, 12), inside=KEEP, outside=REFERENCE, cfg=3.0, negative=None):
    """As a sampler node runs it: in inference mode."""
    stock = settings(batch, grid, cfg, negative)
    with torch.inference_mode():
        return sample_masked(model, stock, MaskedLatent(masking, noise(1, grid, seed=4), at, inside, outside))


def calls_of(model):
    """A clone of the model and the list of its network calls' row counts."""
    counted, rows = model.clone(), []
    counted.set_model_unet_function_wrapper(
        lambda f, a: rows.append(len(a["input"])) or f(a["input"], a["timestep"], **a["c"])
    )
    return counted, rows


@pytest.mark.parametrize("batch", [1, 2])
def test_masks_are_the_thresholds_of_the_reported_saliency(model, batch):
    out, masks, saliency = run(model, GradientMasking(SUBJECTS, PAPER), batch=batch)
    assert saliency.labels == ("dog, step 2", "beach, step 2", "dog, step 4", "beach, step 4")
    assert saliency.maps.shape == (4, batch, 4, 10, 12)
    first = shape_mask(saliency.maps[:2], PAPER, ("dog", "beach"))
    assert first.shape == (batch, 4, 10, 12)
    assert torch.equal(masks[:batch, ::8, ::8], first.mean(1))
    assert 0 < float(first.mean()) < 1
    made = {2: first, 4: shape_mask(saliency.maps[2:], PAPER, ("dog", "beach"))}
    expected = sampled_with_masks(model, settings(batch), made, noise(1, (10, 12), seed=4))
    # the same sums in another order, over six steps
    torch.testing.assert_close(out["samples"], expected, atol=1e-4, rtol=0)


def test_every_channel_is_replaced_by_its_own_mask(model):
    """At the last state nothing follows: inside a channel's mask the latent stays, outside it is the reference."""
    kept = run(model, GradientMasking(SUBJECTS, PAPER), at="")[0]["samples"]
    out, _, saliency = run(model, GradientMasking(SUBJECTS, PAPER), at=str(STEPS - 1), outside=KEEP)
    assert torch.equal(out["samples"], kept)
    out, _, saliency = run(model, GradientMasking(SUBJECTS, PAPER), at=str(STEPS))
    mask = shape_mask(saliency.maps, PAPER, ("dog", "beach"))
    assert not torch.equal(mask[:, 0], mask[:, 1])
    expected = torch.where(mask > 0, kept, noise(1, (10, 12), seed=4))
    torch.testing.assert_close(out["samples"], expected, atol=1e-5, rtol=0)


def test_together_makes_one_mask_from_the_mean_of_the_channels(model):
    _, masks, saliency = run(model, GradientMasking(SUBJECTS, PAPER, channels="together"), at="3")
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(masks[:, ::8, ::8], shape_mask(saliency.maps.mean(2), PAPER, ("dog", "beach")))


def test_the_saliency_is_that_of_the_state_that_is_replaced(model):
    """The first state of a run is the noised start: measuring that picture at that noise level gives the same."""
    _, _, saliency = run(model, GradientMasking(SUBJECTS, PAPER), at="0")
    sampling = model.get_model_object("model_sampling")
    level = float(sampling.timestep(torch.tensor(saliency.sigma))) / 999
    with torch.inference_mode():
        alone = gradient_saliency(
            model, conditioning(1), {"samples": noise(1, (10, 12))}, SUBJECTS, level, 7, "absolute", "structured"
        )
    assert alone.sigma == pytest.approx(saliency.sigma, rel=5e-3)
    # the schedule's noise levels lie between timesteps
    assert relative_error(saliency.maps, alone.maps) <= 0.05


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_each_manipulated_step_costs_one_call_and_the_picture_is_else_the_stock_one(model, cfg):
    counted, rows = calls_of(model)
    stock = run(counted, GradientMasking(SUBJECTS, PAPER), at="", cfg=cfg)[0]["samples"]
    plain = len(rows)
    rows.clear()
    kept = run(counted, GradientMasking(SUBJECTS, PAPER), at="2, 4", outside=KEEP, cfg=cfg)[0]["samples"]
    assert len(rows) == plain + 2
    assert sum(rows) == STEPS * (1 if cfg == 1.0 else 2) + 2  # the negative is not evaluated for the mask
    assert torch.equal(kept, stock)


def test_guidance_has_no_part_in_the_saliency(model):
    """Neither the negative, nor how long it is, nor what other nodes do with the two predictions."""
    guided, calls = model.clone(), []
    guided.set_model_sampler_post_cfg_function(lambda args: calls.append(args) or args["denoised"])
    found = [run(m, GradientMasking(SUBJECTS, PAPER), at="0", cfg=c)[2].maps for m, c in ((model, 1.0), (guided, 3.0))]
    assert relative_error(found[1], found[0]) <= 1e-5
    assert len(calls) == STEPS
    long = run(model, GradientMasking(SUBJECTS, PAPER), at="0", negative=conditioning(2, chunks=2))[2].maps
    assert relative_error(long, found[0]) <= 1e-5


def test_an_earlier_layer_by_name(model):
    """The masks come from the layer that is named, by the exact solver; structured says what to choose."""
    masking = GradientMasking(SUBJECTS, PAPER, solver="exact", layer="output.2")
    _, _, saliency = run(model, masking, at="0", grid=(4, 6))
    _, _, last = run(model, GradientMasking(SUBJECTS, PAPER, solver="exact"), at="0", grid=(4, 6))
    assert relative_error(saliency.maps, last.maps) > 0.1
    with pytest.raises(ValueError, match=r"further blocks follow the layer output\.2\.0"):
        run(model, GradientMasking(SUBJECTS, PAPER, layer="output.2"), grid=(4, 6))


def test_the_masks_of_several_layers_intersect(model):
    """And are exchanged, or smoothed, as one mask."""
    names, grid = ("output.2.0", "output.3.0"), (4, 6)
    both = GradientMasking(SUBJECTS, PAPER, solver="exact", layer=", ".join(names))
    _, masks, saliency = run(model, both, at="1", grid=grid)
    assert saliency.labels == tuple(f"{word}, {name}, step 1" for name in names for word in ("dog", "beach"))
    alone = [shape_mask(maps, PAPER, ("dog", "beach")) for maps in saliency.maps.split(2)]
    assert not torch.equal(*alone)
    expected = alone[0] * alone[1]
    assert 0 < float(expected.mean()) < 1
    assert torch.equal(masks[:, ::8, ::8], expected.mean(1))
    assert torch.equal(shape_mask(saliency.maps, replace(PAPER, invert=True), saliency.labels, 2), 1 - expected)


def test_a_mask_that_is_smoothed_behind_the_threshold_mixes_at_its_edge(model):
    """The saliency is divided as it is; the mask has values between, and so has what is replaced."""
    order = replace(PAPER, smooth_and_dilate="after the threshold")
    out, masks, saliency = run(model, GradientMasking(SUBJECTS, order), at=str(STEPS))
    divided = shape_mask(saliency.maps, replace(PAPER, smooth_sigma=0.0, dilate_iterations=0), ("dog", "beach"))
    expected = dilate(
        gaussian_smooth(divided, PAPER.smooth_sigma, PAPER.smooth_size), PAPER.dilate_size, PAPER.dilate_iterations
    )
    assert ((expected > 0.01) & (expected < 0.99)).any()
    torch.testing.assert_close(masks[:, ::8, ::8], expected.mean(1))
    kept = run(model, GradientMasking(SUBJECTS, PAPER), at="")[0]["samples"]
    mixed = expected * kept + (1 - expected) * noise(1, (10, 12), seed=4)
    torch.testing.assert_close(out["samples"], mixed, atol=1e-5, rtol=0)


def test_the_model_is_afterwards_as_it_was(model):
    before = {name: (id(p), p.requires_grad) for name, p in model.model.diffusion_model.named_parameters()}
    first, again = (run(model, GradientMasking(SUBJECTS, PAPER))[0]["samples"] for _ in range(2))
    assert torch.equal(first, again)
    assert {n: (id(p), p.requires_grad) for n, p in model.model.diffusion_model.named_parameters()} == before
    assert not model.wrappers
    assert not any("forward" in vars(module) for module in model.model.diffusion_model.modules())


@pytest.mark.parametrize("ending", ["cancelled", "out of memory"])
def test_a_run_that_ends_inside_the_gradients_leaves_the_model_as_it_was(model, ending):
    import comfy.model_management as management

    first = run(model, GradientMasking(SUBJECTS, PAPER))[0]["samples"]
    act = management.interrupt_current_processing if ending == "cancelled" else out_of_memory
    with pytest.raises((management.InterruptProcessingException, torch.OutOfMemoryError)), at("backward", 2, act):
        run(model, GradientMasking(SUBJECTS, PAPER))
    assert torch.equal(run(model, GradientMasking(SUBJECTS, PAPER))[0]["samples"], first)
    assert not any("forward" in vars(module) for module in model.model.diffusion_model.modules())


@pytest.mark.parametrize(
    ("choices", "words"),
    [
        ({"channels": "some"}, "channels 'some' is not one of: each, together"),
        ({"polarity": "both"}, "polarity 'both' is not one of: absolute, positive"),
        ({"solver": "magic"}, "solver 'magic' is not one of: structured, exact"),
    ],
)
def test_mistakes_are_told(model, choices, words):
    with pytest.raises(ValueError, match=words):
        run(model, GradientMasking(SUBJECTS, PAPER, **choices))


def test_a_deeper_model_says_what_to_choose(comfy):
    with pytest.raises(ValueError, match="Choose the solver 'exact'"):
        run(random_unet("SDXL", seed=2), GradientMasking(SUBJECTS, PAPER), grid=(4, 4))
