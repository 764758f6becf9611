"""Classifier Guidance on the real server, by the shipped workflow, with the toy checkpoint and a small random CLIP.

What a random image encoder likes is no better picture: that its score rises is what can be seen here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.tools.comfyui.client import Result
from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.server import ComfyServer
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import fill_classifier

STEPS = 6
pytestmark = pytest.mark.usefixtures("small_models")


def shipped(**inputs: object) -> Workflow:
    """The workflow with other inputs of Classifier Guidance."""
    return fill_classifier(Workflow.shipped("28_classifier_guidance"), steps=STEPS).fill("Better pictures", **inputs)


def picture(result: Result, workflow: Workflow) -> np.ndarray:
    return np.asarray(result.images(workflow.node("Result"))[0].convert("RGB")).astype(int)


def losses(result: Result, workflow: Workflow, of: str = "text") -> list[float]:
    text = result.text(workflow.node("What happened"))
    return [float(loss) for loss in re.findall(rf"loss of {of} (-?\d+\.\d+)", text)]


@pytest.fixture
def improved_predictor(server: ComfyServer) -> Iterator[str]:
    """A file on the server as LAION's improved aesthetic predictor is: its names and widths, for a CLIP of width 64."""
    widths = {0: (64, 1024), 2: (1024, 128), 4: (128, 64), 6: (64, 16), 7: (16, 1)}
    generator, tensors = torch.Generator().manual_seed(8), {}
    for layer, (given, made) in widths.items():
        scale = 1.0 if layer == 0 else given**-0.5  # the embedding has length 1
        tensors[f"layers.{layer}.weight"] = scale * torch.randn(made, given, generator=generator)
        tensors[f"layers.{layer}.bias"] = 0.1 * torch.randn(made, generator=generator)
    file = server.base / "models" / "classifiers" / "improved-aesthetics.safetensors"
    file.parent.mkdir(exist_ok=True)
    save_file(tensors, file)
    try:
        yield file.name
    finally:
        file.unlink()


def test_the_score_rises_against_a_run_that_is_moved_by_nothing_to_speak_of(client):
    workflow, still = shipped(), shipped(step_size=1e-7)
    guided, plain = (losses(client.run(each.graph), each) for each in (workflow, still))
    assert len(guided) == len(plain) == STEPS
    assert guided[0] == plain[0]
    assert guided[-1] < plain[-1]


def test_an_aesthetic_predictor_from_a_file_on_the_server_scores_higher(client, improved_predictor):
    """Without a text; the loss is minus the score."""
    found = []
    for step_size in (0.05, 1e-7):
        workflow = shipped(aesthetics=improved_predictor, step_size=step_size)
        del workflow.graph[workflow.node("Better pictures")]["inputs"]["text"]
        found.append(losses(client.run(workflow.graph), workflow, "aesthetics"))
    guided, plain = found
    assert len(guided) == len(plain) == STEPS
    assert guided[0] == plain[0]
    assert guided[-1] < plain[-1]


def test_without_strength_it_is_the_picture_without_the_node(client):
    off = shipped(strength=0.0)
    result = client.run(off.graph)
    assert result.text(off.node("What happened")) == "no step was guided"
    plain = off.fill("Sampler", model=[off.node("Checkpoint"), 0])
    gone = plain.node("Better pictures"), plain.node("What happened")
    plain = Workflow({name: node for name, node in plain.graph.items() if name not in gone})
    assert np.array_equal(picture(result, off), picture(client.run(plain.graph), plain))


def test_mistakes_reach_the_user(client):
    without = shipped()
    del without.graph[without.node("Better pictures")]["inputs"]["text"]
    with pytest.raises(ComfyError, match="nothing says what the picture shall be like"):
        client.run(without.graph)
    two = shipped()
    both = {"conditioning_1": [two.node("Prompt"), 0], "conditioning_2": [two.node("Negative prompt"), 0]}
    combined = {"class_type": "ConditioningCombine", "inputs": both, "_meta": {"title": "Both"}}
    two.graph[two.node("Better pictures")]["inputs"]["text"] = ["both", 0]
    with pytest.raises(ComfyError, match="text has 2 conditionings, combined"):
        client.run({**two.graph, "both": combined})
