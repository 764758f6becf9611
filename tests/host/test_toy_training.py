"""The toys' trainings, a few steps of each: what is learned, the same twice, and broken off and taken up again."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from tests.tools.comfyui.install import installed
from tests.tools.toy_world import snapshots, train_transformer, train_two
from tests.tools.toy_world.continued import frozen_autoencoder
from tests.tools.toy_world.diffusion import Plan, finished_or_so_far, train_diffusion
from tests.tools.toy_world.group_judge import train_group_judge
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
    monkeypatch.setattr(snapshots, "SNAPSHOT_STEPS", 2)
    straight = train(kind, vocabulary, tmp_path / "straight.pt", 5)
    with pytest.raises(KeyboardInterrupt):
        train(kind, vocabulary, tmp_path / "broken.pt", 5, stop_after=3)
    assert torch.load(tmp_path / "broken.pt", weights_only=True)["step"] == 2
    resumed = train(kind, vocabulary, tmp_path / "broken.pt", 5)
    assert {k for k in straight if not torch.equal(straight[k], resumed[k])} == set()


def test_what_a_broken_off_run_has_so_far_is_the_average_of_its_last_snapshot(vocabulary, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "SNAPSHOT_STEPS", 2)
    snapshot = tmp_path / "broken.pt"
    with pytest.raises(KeyboardInterrupt):
        train("transformer", vocabulary, snapshot, 5, stop_after=3)
    average = torch.load(snapshot, weights_only=True)["average"]["values"]
    plan, stage = Plan(steps=5, batch=2, learning_rate=1e-3), tmp_path / "stage.pt"
    made = finished_or_so_far(True, stage, plan, lambda p: train("transformer", vocabulary, snapshot, p.steps))
    assert all(torch.equal(a, b) for a, b in zip(average, made.values(), strict=True))
    assert not stage.exists()


def test_a_judges_training_that_was_broken_off_ends_as_one_that_was_not(comfy, toy_checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "SNAPSHOT_STEPS", 2)
    vae = frozen_autoencoder(load_file(toy_checkpoint), CPU)
    straight = train_group_judge(3, vae, CPU, tmp_path / "straight.pt", batch=8).state_dict()
    assert torch.load(tmp_path / "straight.pt", weights_only=True)["step"] == 2
    resumed = train_group_judge(3, vae, CPU, tmp_path / "straight.pt", batch=8).state_dict()
    assert {k for k in straight if not torch.equal(straight[k], resumed[k])} == set()


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seeds_train_the_same_weights(kind, vocabulary, tmp_path):
    first, again = (train(kind, vocabulary, tmp_path / f"{i}.pt", 3) for i in range(2))
    assert {k for k in first if not torch.equal(first[k], again[k])} == set()
    assert not list(tmp_path.iterdir())  # nothing is kept before the first snapshot


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_that_matters_is_taught(kind, vocabulary):
    """The last block's text leads nowhere in a Qwen-Image transformer: only its keys and values are looked at."""
    make, objective_of = KINDS[kind]
    objective, text = objective_of(shaken(make(CPU))), TextEncoder(vocabulary.rows)
    rows, keep, _ = vocabulary.encode(list(CAPTIONS))
    noised = objective.noised(LATENTS)
    (objective.predict(noised, text(rows, keep), keep) - noised.target).square().mean().backward()
    named = [*objective.network.named_parameters(), *text.named_parameters()]
    untaught = {name for name, p in named if p.grad is None or not p.grad.any()}
    last = [f"attn.{name}" for name in ("norm_added_q.weight", *_linear("add_q_proj"), *_linear("to_add_out"))]
    last += [*_linear("txt_mlp.net.0.proj"), *_linear("txt_mlp.net.2")]
    assert untaught == ({f"transformer_blocks.3.{name}" for name in last} if kind == "transformer" else set())


def shaken(network: torch.nn.Module) -> torch.nn.Module:
    """The network with random numbers added to its weights: at the beginning of a training many of them are zero."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


def _linear(name: str) -> tuple[str, str]:
    return f"{name}.weight", f"{name}.bias"


def test_the_transformer_learns_two_pictures(vocabulary, tmp_path):
    """At first it says 0 everywhere, whose error is the mean square of noise minus picture, about 2."""
    torch.manual_seed(2)
    objective, text = VelocityPrediction(make_transformer(CPU).train()), TextEncoder(vocabulary.rows).train()
    latents = torch.zeros(2, 4, 16, 16)
    latents[0, :2], latents[1, 2:] = 2.0, -2.0
    noised = objective.noised(latents.repeat(4, 1, 1, 1))
    rows, keep, _ = vocabulary.encode([*CAPTIONS[:2]] * 4)

    def error() -> float:
        with torch.no_grad():
            return float((objective.predict(noised, text(rows, keep), keep) - noised.target).square().mean())

    assert error() == pytest.approx(float(noised.target.square().mean()), rel=1e-6)
    plan = Plan(steps=30, batch=4, learning_rate=1e-2)  # a fifth of it at the end of so short a warm-up
    train_diffusion(plan, latents, lambda i, _: CAPTIONS[i], vocabulary, objective, text, tmp_path / "snapshot.pt")
    assert error() < 0.6 * float(noised.target.square().mean())


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
    network, text = shaken(make_transformer(CPU)), TextEncoder(vocabulary.rows)
    objective = VelocityPrediction(network)
    noised = objective.noised(LATENTS)
    rows, keep, _ = vocabulary.encode(list(CAPTIONS))
    context = text(rows, keep)
    together = objective.predict(noised, context, keep)
    assert together.std() > 0.1
    for i, count in enumerate(keep.sum(1).tolist()):
        alone = network(noised.x[i : i + 1].unsqueeze(2), noised.time[i : i + 1], context[i : i + 1, :count])
        torch.testing.assert_close(together[i : i + 1], alone.squeeze(2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("program", "class_name"), [(train_two, "BaseModel"), (train_transformer, "QwenImage")], ids=["two", "transformer"]
)
def test_a_program_keeps_its_stages_and_writes_what_the_stock_loader_takes(
    comfy, program: ModuleType, class_name: str, tmp_path, monkeypatch
):
    monkeypatch.setattr(sys, "argv", ["train", "--work", str(tmp_path), "--out", str(tmp_path), "--threads", "1"])
    monkeypatch.setattr(program, "PICTURES", 4)
    monkeypatch.setattr(program, "DIFFUSION", Plan(steps=2, batch=2, learning_rate=1e-3))
    monkeypatch.setattr(program, "JUDGE_STEPS", 3, raising=False)
    program.main()
    (file,) = tmp_path.glob("toy_*.safetensors")
    first = load_file(file)
    model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(str(file))
    assert type(model.model).__name__ == class_name
    assert clip.tokenize("a dog")
    assert vae.decode(torch.zeros(1, 4, 16, 16)).shape == (1, 128, 128, 3)
    # the second time nothing is drawn, encoded or trained: it would take for ever
    file.unlink()
    monkeypatch.setattr(program, "PICTURES", 10**9)
    monkeypatch.setattr(program, "DIFFUSION", Plan(steps=10**9, batch=2, learning_rate=1e-3))
    program.main()
    again = load_file(file)
    assert first.keys() == again.keys()
    assert all(torch.equal(first[k], again[k]) for k in first)
