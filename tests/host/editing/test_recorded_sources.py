"""MasaCtrl and Plug-and-Play beside a recorded path: what the target takes over is that of the recorded states."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from explainable_latents.nodes.core.methods.inversion import LABELS
from explainable_latents.nodes.core.methods.mutual_self_attention import MutualSelfAttention
from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window
from explainable_latents.nodes.core.methods.trajectory import Trajectory
from explainable_latents.nodes.host.editing.inversion import invert
from explainable_latents.nodes.host.editing.own_run import Guided
from explainable_latents.nodes.host.editing.paths import RECORDED
from tests.host.editing.self_attention import EDITORS, GRID, WRITTEN_DOWN, features_of_the_source
from tests.host.editing.twins import SOURCE, STEPS, TARGET, WRITTEN, relative, twin, written_down
from tests.host.unets import conditioning, noise, random_unet, sample

NAMES = ["MasaCtrl", "MasaCtrl with masks", "Plug-and-Play, features"]
NEGATIVE, CFG = conditioning(2), 4.0


@pytest.fixture(scope="module")
def model(comfy):
    return random_unet()


def levels_of(model) -> torch.Tensor:
    import comfy.samplers

    return comfy.samplers.calculate_sigmas(model.model.model_sampling, "normal", STEPS)


def arbitrary(model) -> Trajectory:
    """A path that no sampler would take: other noise at each level, for each of two pictures."""
    levels, picture = levels_of(model), 0.5 * noise(2, GRID, 9)
    states = tuple(picture + level * noise(2, GRID, i) for i, level in enumerate(levels))
    return Trajectory(tuple(levels.tolist()), states, False, "a test")


def recorded(model, path: Trajectory, *editors, **how):
    return twin(model, *editors, path=RECORDED, trajectory=path, **how)


@torch.no_grad()
def by_hand(model, name: str, path: Trajectory) -> torch.Tensor:
    """Euler's steps of the target alone; at each the network sees the recorded states beside it."""
    network, levels = model.model, torch.tensor(path.levels)
    options = written_down(model, WRITTEN_DOWN[name]).model_options["transformer_options"]
    texts = [NEGATIVE, NEGATIVE, SOURCE, TARGET]
    context = torch.cat([text[0][0].expand(2, -1, -1) for text in texts])
    x = path.states[0]
    with features_of_the_source(model) if "features" in name else nullcontext():
        for i, (sigma, following) in enumerate(pairwise(levels)):
            rows = torch.cat([path.states[i], x]).repeat(2, 1, 1, 1)
            levels_of_rows = sigma.expand(len(rows))
            call = {**options, "sample_sigmas": levels, "sigmas": levels_of_rows, "cond_or_uncond": [1, 0]}
            made = network.apply_model(rows, levels_of_rows, c_crossattn=context, transformer_options=call)
            negative, positive = (each[2:] for each in made.chunk(2))
            made = negative + CFG * (positive - negative)
            x = x + (x - made) / sigma * (following - sigma)
    return network.process_latent_out(x)


@pytest.mark.parametrize("name", NAMES)
def test_the_latent_is_that_of_a_run_written_down(model, name):
    """Keys and values, or queries, keys and features, are those of the states that were recorded."""
    path, how = arbitrary(model), {"steps": STEPS, "batch": 2, "grid": GRID, "cfg": CFG, "negative": NEGATIVE}
    found, expected = sample(recorded(model, path, EDITORS[name]), **how), by_hand(model, name, path)
    assert relative(found, expected) < WRITTEN
    # most of the latent is noise: the difference is small against what the editor changes, too
    assert (found - expected).abs().max() < 0.02 * (sample(recorded(model, path), **how) - expected).abs().max()


@pytest.mark.parametrize("name", NAMES)
def test_outside_its_steps_it_is_the_run_beside_the_path_bit_for_bit(model, name):
    never, path, how = Window(1.0, 1.0), arbitrary(model), {"batch": 2, "grid": GRID}
    off = MutualSelfAttention(never) if "MasaCtrl" in name else PlugAndPlay(never, Window(0, 0))
    plain = sample(recorded(model, path), **how)
    assert torch.equal(sample(recorded(model, path, replace(EDITORS[name], method=off)), **how), plain)


@pytest.mark.parametrize("name", ["MasaCtrl", "Plug-and-Play, features"])
def test_with_the_prompt_of_the_inversion_the_picture_comes_back(comfy, name):
    """At guidance 1, from a path that fixed-point iterations found: all that is taken over is the target's own."""
    weights = dict(random_unet(model_channels=64).model.diffusion_model.state_dict())
    quiet = random_unet(weights={**weights, "out.2.weight": 0.05 * weights["out.2.weight"]}, model_channels=64)
    latent = {"samples": 0.5 * noise(2, GRID, 8)}
    path = invert(Guided(quiet, SOURCE, NEGATIVE, 1.0), latent, levels_of(quiet), 8, LABELS[0], False).path
    back = sample(recorded(quiet, path, EDITORS[name]), positive=SOURCE, batch=2, grid=GRID, cfg=1.0)
    torch.testing.assert_close(back, latent["samples"], rtol=1e-3, atol=1e-3)
