"""Inversions in the host: the stock samplers come back to the picture, and nothing but the picture's own run acts."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.inversion import LABELS
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.host.editing.edit_friendly import invert_edit_friendly
from explainable_latents.nodes.host.editing.inversion import invert
from explainable_latents.nodes.host.editing.own_run import schedule
from explainable_latents.nodes.host.editing.paths import RECORDED
from explainable_latents.nodes.host.editing.twin_sampling import Twin
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.editing.inverted import (
    CLOSE,
    GRID,
    NEGATIVE,
    SOURCE,
    custom,
    guided,
    kind,
    noting,
    picture,
    twin,
    weak_unet,
)
from tests.host.patches import PATCHES
from tests.host.unets import conditioning, noise, sample

KEEP, PATH = Policy("keep"), Policy("recorded path")
EVERYWHERE = ImageMasking(torch.ones(1, 8, 8))
# Of SamplerCustom; steps short enough for the iterations of any prediction to come together.
LEVELS = torch.tensor([2.0, 1.2, 0.5, 0.0])


@pytest.fixture(scope="module")
def model(comfy):
    return weak_unet()


def inverted(model, latent: dict, iterations: int = 8, cfg: float = 1.0, label: str = LABELS[0], sigmas=None):
    """Along the levels of `sample`, or those given."""
    return invert(guided(model, cfg), latent, schedule(model, 3, "normal", 1.0, sigmas), iterations, label, True)


def from_latent(model, latent: dict, sigmas=None, sampler: str = "euler", cfg: float = 1.0, positive=SOURCE):
    """SamplerCustom without noise of its own."""
    import comfy.sample
    import comfy.samplers

    samples = latent["samples"]
    levels = schedule(model, 3, "normal", 1.0, sigmas)
    how = comfy.samplers.sampler_object(sampler), levels, positive, NEGATIVE, samples
    return comfy.sample.sample_custom(model, torch.zeros_like(samples), cfg, *how, disable_pbar=True, seed=0)


@pytest.mark.parametrize(
    ("predicts", "batch", "grid", "cfg"),
    [("eps", 3, (9, 6), 3.0), ("v_prediction", 1, GRID, 1.0)],
)
def test_the_stock_euler_comes_back_from_the_latent_that_fixed_point_iterations_find(model, predicts, batch, grid, cfg):
    patched, latent = kind(model, predicts), picture(batch, grid)
    found = inverted(patched, latent, cfg=cfg, sigmas=LEVELS)
    assert [tuple(state.shape) for state in found.path.states] == [(batch, 4, *grid)] * 4
    assert {state.dtype for state in found.path.states} == {torch.float32}
    torch.testing.assert_close(from_latent(patched, found.start, LEVELS, cfg=cfg), latent["samples"], **CLOSE)
    torch.testing.assert_close(found.round_trip["samples"], latent["samples"], **CLOSE)
    plain = inverted(patched, latent, iterations=0, cfg=cfg, sigmas=LEVELS)
    off = (plain.round_trip["samples"] - latent["samples"]).abs().max()
    assert off > 30 * (found.round_trip["samples"] - latent["samples"]).abs().max()


def test_flow_models_come_back_too_but_a_latent_cannot_hold_their_noise(model):
    from comfy_execution.graph_utils import ExecutionBlocker

    patched, latent = kind(model, "flow"), picture()
    found = inverted(patched, latent)
    torch.testing.assert_close(found.round_trip["samples"], latent["samples"], **CLOSE)
    assert isinstance(found.start, ExecutionBlocker)
    assert "Connect the trajectory instead" in found.start.message
    copy = patched.clone()
    plan = MaskedLatent(EVERYWHERE, latent["samples"], "1", KEEP, PATH, found.path)
    plan.install(copy)
    torch.testing.assert_close(sample(copy, positive=SOURCE, cfg=1.0, grid=GRID), latent["samples"], **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_come_back_within_their_own_rounding(comfy, dtype):
    """The states stay in float32; what the network rounds is some thousandths of a prediction."""
    found = inverted(weak_unet(dtype), picture())
    torch.testing.assert_close(found.round_trip["samples"], picture()["samples"], rtol=0, atol=0.05)
    assert found.path.states[0].dtype == torch.float32


def test_no_iteration_and_the_iterations_first_guess_are_the_same_bits(model):
    """Each label has a path of its own; a picture's path does not depend on its batch but for rounding."""
    both = [inverted(model, picture(), iterations=0, label=label).path for label in LABELS]
    assert not torch.allclose(both[0].states[0], both[1].states[0], **CLOSE)
    assert torch.equal(both[0].states[0], inverted(model, picture(), iterations=0).path.states[0])
    three = picture(3)
    alone = inverted(model, {"samples": three["samples"][1:2]}, iterations=2).path.states[0]
    torch.testing.assert_close(inverted(model, three, iterations=2).path.states[0][1:2], alone, **CLOSE)


def test_patches_of_other_nodes_take_part_and_this_packs_own_do_not(model):
    latent = picture()
    expected = inverted(model, latent, iterations=1).path.states[0]
    ours = model.clone()
    Twin(SOURCE).install(ours)
    assert torch.equal(inverted(ours, latent, iterations=1).path.states[0], expected)
    changed = PATCHES["LoRA"](model)
    found = inverted(changed, latent, iterations=16)
    assert not torch.allclose(found.path.states[0], expected, **CLOSE)
    torch.testing.assert_close(from_latent(changed, found.start), latent["samples"], **CLOSE)


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpmpp_2m", "ddpm", "sa_solver"])
def test_a_recorded_source_is_at_every_call_what_was_recorded_bit_for_bit(model, sampler):
    """Whatever the sampler makes of it; at cfg 4, although it was inverted at 1. The target begins where it begins."""
    latent = picture(2)
    path = inverted(model, latent, iterations=1).path
    both, seen = noting(twin(model, path))
    sample(both, sampler=sampler, batch=2, grid=GRID)
    assert {sigma for sigma, _ in seen} >= set(path.levels[:-1])
    for sigma, x in seen:
        assert torch.equal(x[:2], path.at(sigma))
    assert torch.equal(seen[0][1][2:], path.states[0])


def test_the_target_of_the_same_prompt_comes_back_with_the_source(model):
    latent = picture()
    path = inverted(model, latent).path
    result = sample(twin(model, path), positive=SOURCE, cfg=1.0, grid=GRID)
    torch.testing.assert_close(result, latent["samples"], **CLOSE)


def test_the_targets_own_start_and_a_run_that_goes_on_are_left_alone(model):
    path = inverted(model, picture(), iterations=1).path
    own, seen = noting(twin(model, path, own_start=True))
    torch.testing.assert_close(sample(own, grid=GRID), sample(model, grid=GRID), rtol=1e-4, atol=1e-2)
    latent = {"samples": noise(1, GRID, 4)}
    both, seen = noting(twin(model, path))
    from_latent(both, latent)
    torch.testing.assert_close(seen[0][1][1:], model.model.process_latent_in(latent["samples"]))


@pytest.mark.parametrize("sampler", ["uni_pc", "dpm_2"])
def test_other_schedules_are_refused_with_both(model, sampler):
    path = inverted(model, picture(), iterations=0).path
    with pytest.raises(
        ValueError, match=r"schedule is not the inversion's: .* in 3 steps, but the inversion in 3 steps"
    ):
        sample(twin(model, path), sampler=sampler, grid=GRID)
    with pytest.raises(ValueError, match=r"in 5 steps, but the inversion in 3 steps recorded"):
        sample(twin(model, path, own_start=True), steps=5, grid=GRID)
    with pytest.raises(ValueError, match="reference latent is 8 x 8 with 4 channels but the sampled latent is 6 x 6"):
        sample(twin(model, path), grid=(6, 6))


def friendly(model, latent: dict, skip: float = 0.0, cfg: float = 2.0, steps: int = 4):
    levels = schedule(model, steps, "normal", 1.0, None)
    return invert_edit_friendly(guided(model, cfg), latent, levels, skip, 3)


@pytest.mark.parametrize(("predicts", "batch", "grid"), [("eps", 3, (9, 6)), ("v_prediction", 1, GRID)])
def test_edit_friendly_noise_leads_the_stock_sampler_through_the_recorded_states(model, predicts, batch, grid):
    """To rounding; the picture is off by the last step's residual alone, which the report has."""
    patched, latent = kind(model, predicts), picture(batch, grid)
    found, sampler = friendly(patched, latent)
    noted, seen = noting(patched)
    result = custom(noted, sampler, torch.tensor(found.path.levels), latent["samples"])
    for (sigma, x), level, expected in zip(seen, found.path.levels[:-1], found.path.states[:-1], strict=True):
        assert sigma == pytest.approx(level)
        torch.testing.assert_close(x, expected, **CLOSE)
    torch.testing.assert_close(result, found.round_trip["samples"], **CLOSE)
    assert torch.equal(found.path.picture, patched.model.process_latent_in(latent["samples"]))
    another = custom(patched, sampler, torch.tensor(found.path.levels), latent["samples"], positive=conditioning(9))
    assert not torch.allclose(another, result, **CLOSE)


def test_edit_friendly_in_a_twin_run_has_the_same_noise_in_both_blocks(model):
    found, sampler = friendly(model, picture(2), skip=0.25)
    assert len(found.path.levels) == 4
    both, seen = noting(twin(model, found.path))
    custom(both, sampler, torch.tensor(found.path.levels), picture(2)["samples"])
    for sigma, x in seen:
        assert torch.equal(x[:2], found.path.at(sigma))
        torch.testing.assert_close(x[2:], x[:2], **CLOSE)


def test_edit_friendly_refuses_what_was_not_inverted(model):
    found, sampler = friendly(model, picture())
    levels, start = torch.tensor(found.path.levels), picture()["samples"]
    with pytest.raises(ValueError, match=r"in 6 steps, but the edit-friendly inversion in 4 of 4 steps recorded"):
        custom(model, sampler, schedule(model, 6, "normal", 1.0, None), start)
    with pytest.raises(ValueError, match="connect the latent output of Edit-Friendly Inversion"):
        custom(model, sampler, levels, picture(grid=(6, 6))["samples"])
    with pytest.raises(ValueError, match="fades the picture out"):
        friendly(kind(model, "flow"), picture())
    with pytest.raises(ValueError, match=r"skip 1\.0 leaves none of 4 steps"):
        friendly(model, picture(), skip=1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda model: inverted(model, {"samples": torch.zeros(1, 4, 8, 8)}), "the latent is empty"),
        (lambda model: inverted(model, picture(), iterations=-1), "iterations -1 must be 0"),
        (lambda model: inverted(model, picture(), label="mine"), "label 'mine' is not one of"),
        (lambda model: schedule(model, 0, "normal", 1.0, None), "steps 0 and denoise"),
        (lambda model: schedule(model, 3, "normal", 0.0, None), r"denoise 0\.0"),
        (lambda model: schedule(model, 3, "normal", 1.0, torch.tensor([3.0, 1.0])), r"the sigmas end at 1\.0"),
        (lambda model: Twin(SOURCE, path=RECORDED), "no trajectory is connected"),
        (lambda model: MaskedLatent(EVERYWHERE, noise(), "1", KEEP, PATH), "no trajectory is connected"),
    ],
)
def test_mistakes_are_named(model, call, message):
    with pytest.raises(ValueError, match=message):
        call(model)


def test_a_cancelled_inversion_leaves_nothing_behind(model):
    from comfy.model_management import InterruptProcessingException, interrupt_current_processing

    expected = inverted(model, picture(), iterations=1).path
    interrupt_current_processing(True)
    with pytest.raises(InterruptProcessingException):
        inverted(model, picture(), iterations=1)
    for state, other in zip(inverted(model, picture(), iterations=1).path.states, expected.states, strict=True):
        assert torch.equal(state, other)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "sa_solver"])
def test_a_recorded_path_outside_a_mask_gives_the_picture_back_bit_for_bit(model, sampler):
    """An empty mask: the picture, as the host scales it there and back. A full one: a plain run from the start."""
    latent = picture(2)
    found = inverted(model, latent, iterations=1)

    def masked(mask: torch.Tensor, at: str) -> torch.Tensor:
        copy = model.clone()
        plan = MaskedLatent(ImageMasking(mask), latent["samples"], at, KEEP, PATH, found.path)
        plan.install(copy)
        return sample(copy, batch=2, sampler=sampler, grid=GRID)

    back = model.model.process_latent_out(model.model.process_latent_in(latent["samples"]))
    assert torch.equal(masked(torch.zeros(1, 8, 8), "1-3"), back)
    half = torch.zeros(2, 8, 8)
    half[0, :, 4:] = 1
    half[1, :4] = 1
    result = masked(half, "1-3")
    assert torch.equal(result[0, ..., :4], back[0, ..., :4])
    assert torch.equal(result[1, :, 4:], back[1, :, 4:])
    if sampler != "sa_solver":  # it is restarted where its state is changed
        plain = from_latent(model, found.start, None, sampler, cfg=4.0, positive=conditioning(1))
        torch.testing.assert_close(masked(torch.ones(1, 8, 8), "1-3"), plain, **CLOSE)
