"""Structured Diffusion on the real server, by the shipped workflow, with the checkpoint that draws two things."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import fill_phrases

PROMPT, PHRASES = "a red dog and a blue cat on the beach", "red dog, blue cat"


def shipped(phrases: str = PHRASES, strength: float = 1.0, **sampler: float) -> Workflow:
    workflow = fill_phrases(
        Workflow.shipped("25_structured_diffusion"), PROMPT, phrases, **{"steps": 6, "seed": 5, **sampler}
    )
    return workflow.fill("Phrases alone", strength=strength)


def pictures(client, workflow: Workflow) -> tuple[np.ndarray, np.ndarray, str]:
    """With phrases and without, and what the node shows."""
    plain = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node("Decode without phrases"), 0]}}
    result = client.run({**workflow.graph, "plain": plain})
    with_phrases, without = (
        np.asarray(result.images(node)[0].convert("RGB")).astype(int) for node in (workflow.node("Result"), "plain")
    )
    return with_phrases, without, result.text(workflow.node("Phrases alone"))


def test_phrases_change_the_picture_a_little_and_are_shown_on_the_node(client):
    found, plain, text = pictures(client, shipped())
    assert text == "red dog | tokens 2, 3\nblue cat | tokens 6, 7"
    assert 0.2 < np.abs(found - plain).mean() < 40  # another scene would differ by more
    _, _, every = pictures(client, shipped(phrases=""))
    assert [line.split(" | ")[0] for line in every.splitlines()] == ["red dog", "blue cat", "beach"]


def test_without_strength_it_is_the_plain_picture(client):
    found, plain, _ = pictures(client, shipped(strength=0.0))
    assert np.array_equal(found, plain)


def test_a_phrase_that_the_prompt_lacks_is_an_error_that_lists_its_tokens(client):
    with pytest.raises(ComfyError, match=r"phrases: 'green horse' is not in the prompt\. It has the tokens 1:a 2:red"):
        client.run(shipped(phrases="red dog, green horse").graph)


def test_another_text_at_the_sampler_is_an_error_that_says_what_to_connect(client):
    workflow = shipped()
    other = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a bus on the road"}}
    graph = {**workflow.fill("Sampler", positive=["other", 0]).graph, "other": other}
    with pytest.raises(ComfyError, match="phrases of 'a red dog and a blue cat on the beach', but this is not what is"):
        client.run(graph)
