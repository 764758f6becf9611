"""O-BELM in the host: its sampler comes back to the picture exactly, through the states that were recorded."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.inversion import EULER, LABELS, TWO_STEPS
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.host.editing.own_run import schedule
from explainable_latents.nodes.host.editing.two_steps import invert_by
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from tests.host.editing.inverted import CLOSE, GRID, custom, guided, kind, noting, picture, twin, weak_unet
from tests.host.unets import conditioning

STEPS = 6


@pytest.fixture(scope="module")
def model(comfy):
    return weak_unet()


def inverted(model, latent: dict, cfg: float = 1.0, iterations: int = 0, steps: int = STEPS, rule: str = TWO_STEPS):
    levels = schedule(model, steps, "normal", 1.0, None)
    return invert_by(rule, guided(model, cfg), latent, levels, iterations, LABELS[0], True, None)


def back(model, found, sampler, latent: dict, **how) -> torch.Tensor:
    """SamplerCustom along the levels of the path."""
    return custom(model, sampler, torch.tensor(found.path.levels), latent["samples"], **how)


@pytest.mark.parametrize(
    ("predicts", "batch", "grid", "cfg"),
    [("eps", 3, (9, 6), 3.0), ("v_prediction", 1, GRID, 1.0), ("flow", 2, GRID, 2.0)],
)
def test_the_sampler_comes_back_through_the_recorded_states(model, predicts, batch, grid, cfg):
    """At any guidance, whatever noise the sampler was given; another prompt ends elsewhere."""
    patched, latent = kind(model, predicts), picture(batch, grid)
    found, sampler = inverted(patched, latent, cfg)
    assert [tuple(state.shape) for state in found.path.states] == [(batch, 4, *grid)] * (STEPS + 1)
    noted, seen = noting(patched)
    result = back(noted, found, sampler, latent, cfg=cfg)
    for (sigma, x), level, expected in zip(seen, found.path.levels[:-1], found.path.states[:-1], strict=True):
        assert sigma == pytest.approx(level)
        torch.testing.assert_close(x, expected, **CLOSE)
    torch.testing.assert_close(result, latent["samples"], **CLOSE)
    torch.testing.assert_close(found.round_trip["samples"], latent["samples"], **CLOSE)
    other = back(patched, found, sampler, latent, cfg=cfg, positive=conditioning(9))
    assert not torch.allclose(other, result, **CLOSE)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_weights_come_back_as_exactly(comfy, dtype):
    """The states are float32, and each prediction is made twice of the same state."""
    found, _ = inverted(weak_unet(dtype), picture())
    torch.testing.assert_close(found.round_trip["samples"], picture()["samples"], rtol=0, atol=0.05)


def test_in_a_twin_run_both_begin_with_the_recorded_states(model):
    latent = picture(2)
    found, sampler = inverted(model, latent)
    both, seen = noting(twin(model, found.path))
    result = back(both, found, sampler, latent, cfg=1.0)
    for sigma, x in seen:
        assert torch.equal(x[:2], found.path.at(sigma))
        torch.testing.assert_close(x[2:], x[:2], **CLOSE)
    torch.testing.assert_close(result, latent["samples"], **CLOSE)


def test_iterations_are_of_the_first_step_and_euler_is_the_inversion_of_one_state(model):
    plain, solved = (inverted(model, picture(), iterations=iterations)[0].path for iterations in (0, 4))
    assert not torch.equal(plain.states[-2], solved.states[-2])
    one, sampler = inverted(model, picture(), rule=EULER)
    assert torch.equal(one.path.states[-2], plain.states[-2])
    assert not torch.allclose(one.path.states[0], plain.states[0], **CLOSE)
    assert sampler.sampler_function.__name__ == "sample_euler"


def test_what_cannot_be_sampled_is_refused(model):
    latent = picture()
    found, sampler = inverted(model, latent)
    levels, start = torch.tensor(found.path.levels), latent["samples"]
    with pytest.raises(ValueError, match="in 4 steps, but the two-step inversion in 6 steps recorded"):
        custom(model, sampler, schedule(model, 4, "normal", 1.0, None), start)
    with pytest.raises(ValueError, match=r"the first two of 7 noise levels, but is asked to sample 4"):
        custom(model, sampler, levels[3:], start)
    with pytest.raises(ValueError, match="connect the latent output of Invert Picture"):
        custom(model, sampler, levels, picture(grid=(6, 6))["samples"])
    cut = model.clone()
    everywhere = ImageMasking(torch.ones(1, 8, 8))
    MaskedLatent(everywhere, start, "3", Policy("keep"), Policy("recorded path"), found.path).install(cut)
    with pytest.raises(ValueError, match="without what cuts a run into parts"):
        custom(cut, sampler, levels, start)
    with pytest.raises(ValueError, match="needs 2 steps or more"):
        inverted(model, latent, steps=1)
    with pytest.raises(ValueError, match="rule 'three steps' is not one of: euler, two steps"):
        inverted(model, latent, rule="three steps")
    with pytest.raises(ValueError, match="iterations -1 must be 0"):
        inverted(model, latent, iterations=-1)
