"""Regional Attention on the real server, by the shipped workflow."""

from __future__ import annotations

import numpy as np
import pytest

from tests.tools.comfyui.errors import ComfyError
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import TOY_REGIONS, fill_regions

NAME = "20_regional_prompts"
BASE, LEFT, RIGHT, AT_THE_WORD = TOY_REGIONS


def shipped(left: str = LEFT, right: str = RIGHT, at_the_word: str = AT_THE_WORD, **sampler: float) -> Workflow:
    return fill_regions(Workflow.shipped(NAME), BASE, left, right, at_the_word, **{"steps": 6, **sampler})


def pictures(client, workflow: Workflow) -> dict[str, np.ndarray]:
    """Both results, and the picture without regions."""
    filled = workflow.graph
    preview = {"class_type": "PreviewImage", "inputs": {"images": [workflow.node("Decode without regions"), 0]}}
    result = client.run({**filled, "plain": preview})
    shown = {"halves": workflow.node("Result"), "word": workflow.node("Result by a word"), "plain": "plain"}
    return {name: np.asarray(result.images(node)[0].convert("RGB")).astype(int) for name, node in shown.items()}


def test_each_half_shows_the_scene_of_its_prompt_and_the_word_another_subject(client):
    """As near to the picture that its prompt alone gives as the base prompt's picture is far from it."""
    found = pictures(client, shipped().fill("A prompt for each half", base_share=0.0))
    halves, plain = found["halves"], found["plain"]
    for side, text in ((slice(0, 48), LEFT), (slice(80, 128), RIGHT)):
        alone = pictures(client, shipped().fill("Prompt", text=text))["plain"]
        near, far = (np.abs(each[:, side] - alone[:, side]).mean() for each in (halves, plain))
        assert near < 0.7 * far
    assert (np.abs(found["word"] - plain).max(-1) > 25).mean() > 0.02


def test_regions_with_the_base_prompt_and_no_share_for_regions_are_the_plain_picture(client):
    """One prompt everywhere: by rounding of one of 255. With the whole share the base's, exactly."""
    same = pictures(client, shipped(BASE, BASE, BASE))
    assert np.abs(same["halves"] - same["plain"]).max() <= 1
    off = pictures(client, shipped().fill("A prompt for each half", base_share=1.0))
    assert np.array_equal(off["halves"], off["plain"])


@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("A prompt for each half", {"ratios": "1,1,1"}, "into 3 parts, but 2 of the 2 region prompts"),
        ("A prompt for each half", {"ratios": "left"}, "'left' is not a list of numbers above 0"),
        ("A prompt for each half", {"ratios": ""}, "region prompt 1 of 2 has no place"),
    ],
)
def test_mistakes_reach_the_user(client, title, inputs, words):
    with pytest.raises(ComfyError, match=words):
        client.run(shipped(steps=2).fill(title, **inputs).graph)
