"""Keep Words, Place Words and Guide Shape on the real server, by the shipped workflows, on the second toy world."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.tools.comfyui.client import Result
from tests.tools.comfyui.errors import ComfyError
from tests.tools.thorough import THOROUGH, further
from tests.tools.toy_world.group_judge import judge_groups, load_group_judge
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import (
    IN_THE_MIDDLE,
    TOY_GROUP,
    fill_guide_shape,
    fill_keep_words,
    fill_place_words,
)

NAME, STEPS = "22_keep_words", 10
KEEP, PLACE, MOVE = "Keep both", "Each in its place", "Move the cat"


def shipped(**inputs: object) -> Workflow:
    """The workflow with other inputs of Keep Words."""
    return fill_keep_words(Workflow.shipped(NAME), steps=STEPS).fill(KEEP, **inputs)


def placing(**inputs: object) -> Workflow:
    """The workflow with other inputs of Place Words."""
    return fill_place_words(Workflow.shipped("23_place_words"), steps=STEPS).fill(PLACE, **inputs)


def moving(**inputs: object) -> Workflow:
    """The workflow with other inputs of Guide Shape."""
    return fill_guide_shape(Workflow.shipped("27_guide_shape"), steps=STEPS, seed=IN_THE_MIDDLE).fill(MOVE, **inputs)


def picture(result: Result, workflow: Workflow) -> np.ndarray:
    return np.asarray(result.images(workflow.node("Result"))[0].convert("RGB")).astype(int)


def losses(result: Result, workflow: Workflow) -> list[dict[str, float]]:
    """The loss of each word at each guided step, as the report says: where it was measured more than once, at first."""
    text = result.text(workflow.node("What happened"))
    return [
        {word: float(loss) for word, loss in re.findall(r"(cat|dog) (\d\.\d+)", line)}
        for line in text.splitlines()
        if line.startswith("step ")
    ]


def test_the_words_are_attended_to_more_than_without(client):
    """Losses of the same steps, with a step that moves the latent and with one that moves it by nothing to speak of."""
    workflow, still = shipped(refinement=""), shipped(refinement="", step_size=1e-6)
    guided, plain = (losses(client.run(each.graph), each) for each in (workflow, still))
    assert len(guided) == len(plain) == STEPS // 2
    assert guided[0] == plain[0]
    worst = [np.mean([max(step.values()) for step in run[1:]]) for run in (guided, plain)]
    assert worst[0] < worst[1]


def without_guidance(workflow: Workflow) -> Workflow:
    """The workflow without the node that guides and without its report."""
    plain = workflow.fill("Sampler", model=[workflow.node("Checkpoint"), 0])
    report = plain.node("What happened")
    return Workflow({name: node for name, node in plain.graph.items() if name != report})


@pytest.mark.parametrize("make", [shipped, further(placing), further(moving)])
def test_without_strength_it_is_the_picture_without_the_node(client, make):
    off = make(strength=0.0)
    result = client.run(off.graph)
    assert result.text(off.node("What happened")) == "no step was guided"
    assert result.files[off.node("What happened")] == ()
    plain = without_guidance(off)
    assert np.array_equal(picture(result, off), picture(client.run(plain.graph), plain))
    guided = make()
    assert not np.array_equal(picture(client.run(guided.graph), guided), picture(result, off))


@pytest.mark.parametrize("make", [shipped, further(placing)])
def test_the_report_draws_a_sheet_for_each_picture(client, make):
    workflow = make().fill("Empty latent", batch_size=3)
    sheets = client.run(workflow.graph).images(workflow.node("What happened"))
    assert [sheet.size for sheet in sheets] == [(600 + 188, 420)] * 3
    assert len({sheet.tobytes() for sheet in sheets}) == 3


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"steps": "the first half"}, "steps: 'the first half' is no part of a run"),
        ({"refinement": "0.5"}, "refinement: '0.5' is not 'step: peak'"),
        ({"layers": "99x99"}, "no cross-attention layer has one of the chosen grids; this latent gives"),
        ({"role": "scene", "layers": "input.77"}, "no cross-attention layer is called 'input.77'"),
    ],
)
def test_mistakes_reach_the_user(client, inputs, words):
    with pytest.raises(ComfyError, match=re.escape(words)):
        client.run(shipped(**inputs).graph)


def test_the_prompt_of_the_words_has_to_be_the_one_that_is_sampled(client):
    workflow = shipped()
    other = {"class_type": "CLIPTextEncode", "inputs": {"clip": [workflow.node("Checkpoint"), 1], "text": "a bus"}}
    graph = {**workflow.fill("Sampler", positive=["other", 0]).graph, "other": other}
    assert TOY_GROUP != "a bus"
    with pytest.raises(ComfyError, match="a bus"):
        client.run(graph)


def test_words_are_attended_to_in_their_boxes_more_than_without(client):
    """Beside a run that is moved by nothing to speak of; in the shipped settings, but for when they stop."""
    how = {"steps": "0-50%", "until": 0.0}
    workflow, still = placing(**how), placing(**how, step_size=1e-6)
    placed, plain = (losses(client.run(each.graph), each) for each in (workflow, still))
    assert len(placed) == len(plain) == STEPS // 2
    assert placed[0] == plain[0]
    mean = [np.mean([list(step.values()) for step in run[1:]]) for run in (placed, plain)]
    assert mean[0] < mean[1]


def test_masks_take_the_place_of_boxes(client):
    """The masks of the same boxes, one for each word in the order of the prompt, give the same picture."""
    boxes = placing()
    masks = boxes.fill(PLACE, role="subject")
    node = masks.graph[masks.node(PLACE)]["inputs"]
    layout, _ = node.pop("layout")
    node["masks"] = [layout, 1]
    by_box, by_mask = (client.run(each.graph) for each in (boxes, masks))
    assert np.array_equal(picture(by_box, boxes), picture(by_mask, masks))
    assert by_mask.text(masks.node("What happened")) == by_box.text(boxes.node("What happened"))


def test_mistakes_about_places_reach_the_user(client):
    workflow = placing()

    def refused(workflow: Workflow, words: str) -> None:
        with pytest.raises(ComfyError, match=re.escape(words)):
            client.run(workflow.graph)

    listed = "names no word of the prompt; its words are: cat, dog, beach"
    refused(workflow.fill("Where things are", text="bus: left half"), f"the box of 'bus' {listed}")
    refused(workflow.fill(PLACE, repeats="often"), "repeats: 'often' is not how often")
    refused(workflow.fill(PLACE, role="scene"), "the box of 'cat' names no word of the prompt; its words are: beach")
    both, neither = workflow.fill(PLACE), workflow.fill(PLACE)
    both.graph[both.node(PLACE)]["inputs"]["masks"] = [both.node("Where things are"), 1]
    refused(both, "Both layout and masks are connected: connect one of them")
    del neither.graph[neither.node(PLACE)]["inputs"]["layout"]
    refused(neither, "Neither layout nor masks are connected: connect one of them")
    three = Workflow(both.graph)
    del three.graph[three.node(PLACE)]["inputs"]["layout"]
    refused(three, "there are 2 masks for 3 words (cat, dog, beach)")


@THOROUGH
def test_a_thing_goes_where_it_is_asked_to_go(client):
    """The centre of the cat's mask, as the judge of the second world sees it, beside the plain picture's."""
    judge, centres = load_group_judge(), {}
    for x in (0.0, -0.3, 0.3):
        workflow = moving(x=x).fill("Sampler", steps=2 * STEPS)
        made = torch.from_numpy(picture(client.run(workflow.graph), workflow)).permute(2, 0, 1)[None] / 255
        (seen,) = judge_groups(judge, made)
        _, mask = seen.subjects["cat"]
        centres[x] = float(mask.nonzero()[:, 1].float().mean()) / mask.shape[1]
    assert centres[-0.3] < centres[0.0] - 0.08
    assert centres[0.3] > centres[0.0] + 0.08


def test_mistakes_about_shapes_reach_the_user(client):
    for inputs, words in (
        ({"words": "bus"}, "words: 'bus' is no word of the prompt; its words are: cat"),
        ({"position": "at", "x": -0.2}, "x -0.2 is outside of the picture; with position at: from 0 to 1"),
        ({"size": "share", "amount": 2.0}, "amount 2.0: with size 'share' it must be above 0 and at most 1"),
    ):
        with pytest.raises(ComfyError, match=re.escape(words)):
            client.run(moving(**inputs).graph)
