"""The toys' trainings, a few steps of each: what is learned, the same twice, and broken off and taken up again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.tools.comfyui.install import installed
from tests.tools.toy_world import diffusion
from tests.tools.toy_world.diffusion import Plan, train_diffusion
from tests.tools.toy_world.modules import TextEncoder, make_transformer, make_unet
from tests.tools.toy_world.objectives import NoisePrediction, VelocityPrediction
from tests.tools.toy_world.vocabulary import Vocabulary, second_world

CPU = torch.device("cpu")
CAPTIONS = ("a red dog on the beach", "a small cat on the left and a blue bus on the road", "horse in forest")
LATENTS = torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(0))
KINDS = {"unet": (make_unet, NoisePrediction), "transformer": (make_transformer, VelocityPrediction)}


@pytest.fixture(scope="module")
def vocabulary(comfy) -> Vocabulary:
    return Vocabulary(installed().tree, second_world())


def train(kind: str, vocabulary: Vocabulary, snapshot: Path, steps: int, stop_after: int = -1) -> dict:
    """Weights of network and text encoder after `steps` steps of 2, or KeyboardInterrupt after `stop_after` of them."""
    calls = 0

    def caption(i: int, rng: np.random.Generator) -> str:
        nonlocal calls
        calls += 1
        if calls > 2 * stop_after > 0:
            raise KeyboardInterrupt
        return CAPTIONS[(i + int(rng.integers(3))) % 3]

    torch.manual_seed(1)
    make, objective_of = KINDS[kind]
    objective, text = objective_of(make(CPU).train()), TextEncoder(vocabulary.rows).train()
    plan = Plan(steps=steps, batch=2, learning_rate=1e-3)
    train_diffusion(plan, LATENTS, caption, vocabulary, objective, text, snapshot)
    return {**objective.network.state_dict(), **{f"text.{k}": v for k, v in text.state_dict().items()}}


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_that_was_broken_off_ends_as_one_that_was_not(kind, vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(diffusion, "SNAPSHOT_STEPS", 2)
    straight = train(kind, vocabulary, tmp_path / "straight.pt", 5)
    with pytest.raises(KeyboardInterrupt):
        train(kind, vocabulary, tmp_path / "broken.pt", 5, stop_after=3)
    assert torch.load(tmp_path / "broken.pt", weights_only=True)["step"] == 2
    resumed = train(kind, vocabulary, tmp_path / "broken.pt", 5)
    assert {k for k in straight if not torch.equal(straight[k], resumed[k])} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seeds_train_the_same_weights_and_every_part_learns(kind, vocabulary, tmp_path):
    first, again = (train(kind, vocabulary, tmp_path / f"{i}.pt", 4) for i in range(2))
    assert {k for k in first if not torch.equal(first[k], again[k])} == set()
    assert not list(tmp_path.iterdir())  # nothing is kept before the first snapshot
    torch.manual_seed(1)
    fresh = {**KINDS[kind][0](CPU).state_dict()}
    fresh |= {f"text.{k}": v for k, v in TextEncoder(vocabulary.rows).state_dict().items()}
    # the last block's text output and the last queries of its text lead nowhere in a Qwen-Image transformer
    dead = ("to_add_out", "add_q_proj", "norm_added_q", "txt_mlp", "txt_mod") if kind == "transformer" else ()
    still = {k for k in fresh if torch.equal(fresh[k], first[k])}
    assert all(k.startswith("transformer_blocks.3.") and any(name in k for name in dead) for k in still), still


def test_the_transformer_learns_two_pictures(vocabulary, tmp_path):
    """At first it says 0 everywhere, whose error is the mean square of noise minus picture, about 2."""
    torch.manual_seed(2)
    objective, text = VelocityPrediction(make_transformer(CPU).train()), TextEncoder(vocabulary.rows).train()
    latents = torch.zeros(2, 4, 16, 16)
    latents[0, :2], latents[1, 2:] = 2.0, -2.0
    noised = objective.noised(latents.repeat(8, 1, 1, 1))
    rows, keep, _ = vocabulary.encode([*CAPTIONS[:2]] * 8)

    def error() -> float:
        with torch.no_grad():
            return float((objective.predict(noised, text(rows, keep), keep) - noised.target).square().mean())

    assert error() == pytest.approx(float(noised.target.square().mean()), rel=1e-6)
    plan = Plan(steps=60, batch=8, learning_rate=2e-3)
    train_diffusion(plan, latents, lambda i, _: CAPTIONS[i], vocabulary, objective, text, tmp_path / "snapshot.pt")
    assert error() < 0.5 * float(noised.target.square().mean())


def test_the_hosts_sampler_finds_the_picture_in_what_the_transformer_is_to_predict(comfy):
    import comfy.model_sampling

    noised = VelocityPrediction(make_transformer(CPU)).noised(LATENTS)
    assert ((noised.time > 0) & (noised.time < 1)).all()
    denoised = comfy.model_sampling.CONST().calculate_denoised(noised.time, noised.target, noised.x)
    torch.testing.assert_close(denoised, LATENTS, atol=1e-5, rtol=0)  # rounding of float32


def test_the_hosts_sampler_finds_the_picture_in_what_the_unet_is_to_predict(comfy):
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscrete, comfy.model_sampling.EPS):
        pass

    noised = NoisePrediction(make_unet(CPU)).noised(LATENTS)
    sigma = Sampling().sigma(noised.time)
    scaled = noised.x * (sigma**2 + 1).sqrt().view(-1, 1, 1, 1)  # the host adds noise without shrinking the picture
    denoised = Sampling().calculate_denoised(sigma, noised.target, scaled)
    torch.testing.assert_close(denoised, LATENTS, atol=1e-3, rtol=1e-4)  # at the last timestep sigma is 14.6


@torch.no_grad()
def test_the_transformer_trains_on_what_the_host_runs_without_padding(vocabulary):
    """A batch of captions of three lengths, each as it is alone in the host, with its own attention and no padding."""
    torch.manual_seed(3)
    network, text = make_transformer(CPU), TextEncoder(vocabulary.rows)
    for parameter in network.parameters():
        parameter.add_(0.05 * torch.randn_like(parameter))
    objective = VelocityPrediction(network)
    noised = objective.noised(LATENTS)
    rows, keep, _ = vocabulary.encode(list(CAPTIONS))
    context = text(rows, keep)
    together = objective.predict(noised, context, keep)
    assert together.std() > 0.1
    for i, count in enumerate(keep.sum(1).tolist()):
        alone = network(noised.x[i : i + 1].unsqueeze(2), noised.time[i : i + 1], context[i : i + 1, :count])
        torch.testing.assert_close(together[i : i + 1], alone.squeeze(2), atol=1e-4, rtol=1e-4)
