"""The templates for Flux, Qwen-Image and Z-Image on the real server, whose own loaders load small random models."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.index import TEMPLATES
from tests.tools.workflows.pipelines import fill_transformer

NAMES = [template.graph for template in TEMPLATES if not template.checkpoint]
SIDE, STEPS = 128, 4


def with_preview(workflow: Workflow, title: str) -> dict:
    """The graph, with the picture of this node shown by a node `shown`."""
    preview = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node(title), 0]}}
    return workflow.graph | {"shown": preview}


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("name", NAMES)
def test_a_template_shows_its_words_and_draws_another_subject(client, name):
    """The first picture is the same without what watches it; the second one differs from it, and has masks."""
    workflow = fill_transformer(Workflow.shipped(name), SIDE, STEPS)
    result = client.run(with_preview(workflow, "Decode"))
    model = workflow.graph[workflow.node("Watch the words")]["inputs"]["model"]
    unwatched = with_preview(workflow.fill("Sampler", model=model), "Decode")
    plain = {i: node for i, node in unwatched.items() if i in needed(unwatched, "shown")}
    assert not any(node["class_type"] == "ELCaptureAttention" for node in plain.values())
    (first,), (expected,) = result.images("shown"), client.run(plain).images("shown")
    assert first.size == (SIDE, SIDE)
    assert np.array_equal(np.asarray(first), np.asarray(expected))
    (second,) = result.images(workflow.node("Result"))
    assert np.abs(np.asarray(second).astype(int) - np.asarray(first)).max() > 10
    masks = [np.asarray(mask.convert("L")) / 255 for mask in result.images(workflow.node("Masks"))]
    assert len(masks) == 3
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert 0.05 < mask.mean() < 0.95
    assert len(result.images(workflow.node("What the words look at"))) >= 2


def needed(graph: dict, last: str) -> set[str]:
    """The nodes that a node's result is made from, itself among them."""
    found, queue = set(), [last]
    while queue:
        found.add(queue[-1])
        links = [value[0] for value in graph[queue.pop()]["inputs"].values() if isinstance(value, list)]
        queue += [each for each in links if each not in found]
    return found


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("Where the subject is", {"layers": "output"}, r"no joint-attention layer is called 'output'; .*double\.0"),
        ("New prompt", {"override": "zebra"}, "zebra"),
        ("Sample again", {"manipulate_at": "9"}, "step 9 does not exist"),
    ],
)
def test_mistakes_reach_the_user(client, title, inputs, words):
    workflow = fill_transformer(Workflow.shipped(NAMES[-1]), SIDE, STEPS)
    with pytest.raises(ComfyError, match=words):
        client.run(workflow.fill(title, **inputs).graph)
