"""Find Points and Carry Mask on the real server, by the shipped workflow."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.two_cars import CARS, fill_cars, named_points

NAME = "08_find_in_another_picture"


def test_points_and_the_marked_thing_are_found_in_the_other_picture(client):
    workflow = Workflow.shipped(NAME)
    result = client.run(fill_cars(client, workflow).graph)
    found = [(each["x"], each["y"]) for each in json.loads(result.text(workflow.node("Coordinates for SAM")))]
    true = np.array(named_points(CARS[1]))
    near = np.hypot(*(np.array(found) + 0.5 - true).T) < 0.15 * 80
    assert len(near) == 4
    assert near.mean() >= 0.75
    (sheet,) = result.images(workflow.node("Both pictures"))
    assert sheet.size == (2 * 384 + 8, 384)
    (mask,) = result.images(workflow.node("Mask in picture B"))
    inside = np.asarray(mask.convert("L")) > 127
    assert (inside & CARS[1].mask).sum() / (inside | CARS[1].mask).sum() > 0.5


@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("Find the points", {"points": "100, 20"}, "are not a list of the form"),
        ("Find the points", {"points": "[[500, 20]]"}, "outside of the picture of 128x128 pixels"),
        ("Find the points", {"points": ""}, "neither is given"),
        ("Find the points", {"block": "attic"}, "block 'attic' is not one of: auto, input.0"),
        ("Find what is marked", {"block": "output.3"}, "block 'output.3' is not one of"),
    ],
)
def test_mistakes_reach_the_user(client, title, inputs, words):
    with pytest.raises(ComfyError, match=words):
        client.run(fill_cars(client, Workflow.shipped(NAME)).fill(title, **inputs).graph)
