"""Place Phrases on the real server, by the shipped workflow, with the checkpoint that draws two things."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import fill_place_phrases

NODE = "Phrases in their places"


def shipped(**inputs: object) -> Workflow:
    return fill_place_phrases(Workflow.shipped("29_place_phrases"), steps=6, seed=5).fill(NODE, **inputs)


def pictures(client, workflow: Workflow) -> tuple[np.ndarray, np.ndarray, str]:
    """With places and without, and what the node shows."""
    plain = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node("Decode without places"), 0]}}
    result = client.run({**workflow.graph, "plain": plain})
    placed, without = (
        np.asarray(result.images(node)[0].convert("RGB")).astype(int) for node in (workflow.node("Result"), "plain")
    )
    return placed, without, result.text(workflow.node(NODE))


def test_places_change_the_picture_and_the_phrases_are_shown_on_the_node(client):
    found, plain, text = pictures(client, shipped(end=1.0))
    assert text == "cat | tokens 2\ndog | tokens 5"
    assert np.abs(found - plain).mean() > 0.5
    other, _, _ = pictures(client, shipped(end=1.0, phrases_alone=True))
    assert not np.array_equal(other, found)


@pytest.mark.parametrize("off", [{"cross_strength": 0.0, "self_strength": 0.0}, {"end": 0.0}], ids=str)
def test_without_strength_or_step_it_is_the_plain_picture(client, off):
    found, plain, _ = pictures(client, shipped(**off))
    assert np.array_equal(found, plain)


def test_a_mask_for_each_word_in_place_of_the_layout(client):
    """Those of the same boxes give the same picture."""
    by_layout = shipped(end=1.0, role="subject")
    by_masks = Workflow(by_layout.graph)
    inputs = by_masks.graph[by_masks.node(NODE)]["inputs"]
    del inputs["layout"]
    inputs["masks"] = [by_masks.node("Where things are"), 1]
    found, expected = (pictures(client, each)[0] for each in (by_masks, by_layout))
    assert np.array_equal(found, expected)


def test_a_box_that_names_no_word_is_an_error(client):
    with pytest.raises(ComfyError, match="the box of 'bus' names no word of the prompt"):
        client.run(shipped().fill("Where things are", text="bus: left half").graph)


def test_another_text_at_the_sampler_is_an_error_that_says_what_to_connect(client):
    workflow = shipped()
    other = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a bus on the road"}}
    graph = {**workflow.fill("Sampler", positive=["other", 0]).graph, "other": other}
    with pytest.raises(ComfyError, match="phrases of 'a cat and a dog on the beach', but this is not what is sampled"):
        client.run(graph)
