"""Prompt-to-Prompt on the real server, by the shipped workflow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.toy_world.cases import keep_the_context
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import fill_edit

CASE = keep_the_context()[2]
NAME = "12_prompt_to_prompt"


def pictures(client, before: str, after: str) -> list[np.ndarray]:
    """The result and the source's picture, of a run of 8 steps."""
    workflow = fill_edit(Workflow.shipped(NAME), before, after, CASE.scene, steps=8)
    result = client.run(workflow.graph)
    return [np.asarray(result.images(workflow.node(title))[0]).astype(int) for title in ("Result", "Source picture")]


def test_the_same_prompt_twice_is_the_source_and_another_word_changes_it(client):
    """The source's own sampler has half the rows, so it may round otherwise: by one of 255."""
    subject, other = CASE.reference.subject, CASE.subject
    same, source = pictures(client, subject, subject)
    assert np.abs(same - source).max() <= 1
    edited, unchanged = pictures(client, subject, other)
    assert np.array_equal(source, unchanged)
    changed = np.abs(edited - source).max(-1) > 25
    assert 0.02 < changed.mean() < 0.5


@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("What is taken over", {"target_text": "a car"}, "these are not what is sampled"),
        ("What is taken over", {"weights": "zebra: 2"}, "'zebra' is not in the target prompt"),
        ("Sampler", {"sampler_name": "dpm_adaptive"}, "chooses its own steps"),
        ("Source and target together", {"source_path": "noised reference"}, "no reference is connected"),
    ],
)
def test_mistakes_reach_the_user(client, title, inputs, words):
    workflow = fill_edit(Workflow.shipped(NAME), CASE.reference.subject, CASE.subject, CASE.scene, steps=2)
    with pytest.raises(ComfyError, match=words):
        client.run(workflow.fill(title, **inputs).graph)
