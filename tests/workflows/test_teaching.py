"""Teach Regions and Find Regions on the real server, by the shipped workflow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.two_cars import CARS, fill_teaching

NAME = "09_teach_regions"


def share(mask, truth: np.ndarray) -> float:
    inside = np.asarray(mask.convert("L")) > 127
    return (inside & truth).sum() / (inside | truth).sum()


def test_one_picture_teaches_and_the_saved_file_finds_the_same_in_another_workflow(client):
    workflow = Workflow.shipped(NAME)
    filled = fill_teaching(client, workflow).fill("Teach what is marked", save_as="cars")
    result = client.run(filled.graph)
    (mask,) = result.images(workflow.node("What was found"))
    assert share(mask, CARS[1].mask) > 0.4
    (uncertainty,) = result.images(workflow.node("How uncertain"))
    assert uncertainty.size == (128, 128)
    other = filled.fill("Find it", file="cars")
    del other.graph[workflow.node("Find it")]["inputs"]["classifier"]
    del other.graph[workflow.node("Teach what is marked")]
    (again,) = client.run(other.graph).images(workflow.node("What was found"))
    assert np.array_equal(np.asarray(again), np.asarray(mask))


@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("Teach what is marked", {"names": "car, road"}, "names 'car, road' for 1 masks"),
        ("Teach what is marked", {"save_as": "../cars"}, "is not a name for a file in"),
        ("Find it", {"file": "cars"}, "give either a classifier or a file: both are given"),
    ],
)
def test_mistakes_reach_the_user(client, title, inputs, words):
    with pytest.raises(ComfyError, match=words):
        client.run(fill_teaching(client, Workflow.shipped(NAME)).fill(title, **inputs).graph)
