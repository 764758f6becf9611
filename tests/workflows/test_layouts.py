"""Layout from Text on the real server: in a run, while one types, and in the shipped workflow."""

from __future__ import annotations

import numpy as np
import pytest
import requests

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import TOY_REGIONS, fill_box

ANSWER = """Here is the layout:
```json
[{"bbox_2d": [500, 0, 1000, 500], "label": "a cat"}, {"bbox_2d": [0, 500, 250, 1000], "label": "a dog"}]
```
I hope it helps."""
VALUES = {"text": "dog: left half", "numbers": "auto", "order": "auto", "width": 64, "height": 64}


def graph(text: object, **more: object) -> dict:
    node = {"class_type": "ELLayoutFromText", "inputs": {**VALUES, "text": text, **more}}
    pictures = {"class_type": "MaskToImage", "inputs": {"mask": ["layout", 1]}}
    return {
        "answer": {"class_type": "PrimitiveStringMultiline", "inputs": {"value": ANSWER}},
        "layout": node,
        "pictures": pictures,
        "masks": {"class_type": "PreviewImage", "inputs": {"images": ["pictures", 0]}},
    }


@pytest.fixture
def ask(server):
    """Ask the server for the boxes of a text, as the browser does while one types."""

    def post(**values: object) -> requests.Response:
        return requests.post(f"{server.url}/api/explainable_latents/layout", json={**VALUES, **values}, timeout=60)

    return post


def test_the_answer_of_another_node_is_read_and_gives_masks_in_its_order(client: ComfyClient):
    result = client.run(graph(["answer", 0]))
    cat, dog = (np.asarray(picture.convert("L")) for picture in result.images("masks"))
    expected = np.zeros((64, 64)), np.zeros((64, 64))
    expected[0][:32, 32:] = 255
    expected[1][32:, :16] = 255
    assert np.array_equal(cat, expected[0])
    assert np.array_equal(dog, expected[1])
    (preview,) = result.images("layout")
    assert preview.size == (64, 64)


def test_a_mistake_reaches_the_user(client: ComfyClient):
    with pytest.raises(ComfyError, match=r"'dog: lft half': 'lft half' is no place. Named places are left"):
        client.run(graph("dog: lft half"))


def test_the_boxes_before_a_run_are_those_after_it(client: ComfyClient, ask):
    (shown,) = client.run(graph("dog: left half; ball: 50%, 50%, 25%, 25%")).outputs["layout"]["el_layout"]
    found = ask(text="dog: left half; ball: 50%, 50%, 25%, 25%").json()
    assert found == {name: shown[name] for name in ("unit", "boxes")}
    assert [each["box"]["words"] for each in found["boxes"]] == ["dog", "ball"]


def test_a_mistake_is_told_before_a_run(ask):
    found = ask(text="dog: 1, 2, 3").json()
    assert found["boxes"] == []
    assert "3 numbers where four are needed" in found["problem"]
    assert "numbers 'inches' is not one of: auto, shares" in ask(numbers="inches").json()["problem"]


@pytest.mark.parametrize("wrong", [{"text": 5}, {"order": None}, {"width": "64"}, {"height": 0}, {"width": True}])
def test_a_request_of_another_kind_is_refused(ask, wrong):
    answer = ask(**wrong)
    assert answer.status_code == 400
    assert "the texts text, numbers, order and the whole numbers width, height" in answer.json()["error"]


def test_in_the_shipped_workflow_the_box_looks_at_its_prompt(client: ComfyClient):
    """Inside the box the picture changes far more than outside: 2.75 times as much when this was written."""
    base, _, inside, _ = TOY_REGIONS
    place = {"text": "dog: right half", "width": 128, "height": 128}
    boxed = fill_box(Workflow.shipped("24_drawn_boxes"), base, inside, steps=6).fill("Where it is", **place)
    alone = fill_box(Workflow.shipped("24_drawn_boxes"), base, base, steps=6).fill("Where it is", **place)
    found, plain = (
        np.asarray(client.run(each.graph).images(each.node("Result"))[0].convert("RGB")).astype(int)
        for each in (boxed, alone)
    )
    change = np.abs(found - plain).mean(-1)
    assert change[:, 80:].mean() > 2 * change[:, :48].mean()
