"""The editors of Twin Sampling on the real server, by the shipped workflows."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from tests.tools.comfyui.errors import ComfyError
from tests.tools.toy_world.cases import keep_the_context, keep_the_subject
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import fill_edit, fill_layout, fill_look, fill_masactrl
from tests.tools.workflows.two_cars import CARS

CASE, OTHER_SCENE = keep_the_context()[2], keep_the_subject()[4]
NAME, CROSS, EYE = "12_prompt_to_prompt", "21_cross_image_attention", "30_eye_for_an_eye"


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


def of_masactrl(client, before: str, **inputs) -> list[np.ndarray]:
    """The result and the source's picture of MasaCtrl's workflow, of a run of 4 steps. inputs: of the editor."""
    workflow = fill_masactrl(Workflow.shipped("18_masactrl"), CASE, steps=4).fill("Source", text=before)
    result = client.run(workflow.fill("What is taken over", **inputs).graph)
    return [np.asarray(result.images(workflow.node(title))[0]).astype(int) for title in ("Result", "Source picture")]


def test_masactrl_takes_over_the_source_and_nothing_when_it_starts_at_the_end(client):
    """With the same prompt twice the result is the source's picture, up to rounding."""
    before = f"{CASE.reference.subject} on {CASE.reference.scene}"
    same, source = of_masactrl(client, CASE.prompt)
    assert np.abs(same - source).max() <= 1
    edited, _ = of_masactrl(client, before)
    plain, _ = of_masactrl(client, before, start=1.0)
    assert np.abs(plain - same).max() <= 1  # the target alone is the picture of its own prompt
    assert (np.abs(edited - plain).max(-1) > 25).mean() > 0.02


def test_plug_and_play_keeps_the_layout_of_a_picture_more_than_the_prompt_alone(client):
    """The result is closer to the picture than the one without anything taken over."""
    picture = OTHER_SCENE.picture().image
    image = client.upload_image(Image.fromarray(picture), "layout.png")
    workflow = fill_layout(Workflow.shipped("19_plug_and_play"), OTHER_SCENE, image, steps=8)
    off = workflow.fill("What is taken over", attention_end=0.0, feature_end=0.0)
    on, plain = (
        np.asarray(client.run(each.graph).images(each.node("Result"))[0]).astype(float) for each in (workflow, off)
    )
    assert np.square(on - picture).mean() < 0.9 * np.square(plain - picture).mean()


EDITORS = {
    "ELPlugAndPlay": {"attention_end": 0.5, "feature_end": 0.8, "layers": "auto", "feature_block": "auto"},
    "ELMutualSelfAttention": {"start": 0.2, "end": 1.0, "layers": "auto"},
}


def beside_the_inversion(client, editor: str | None, prompt: str, guidance: float, **inputs) -> np.ndarray:
    """The result of 8 steps beside the recorded path of the picture, with an editor or none. inputs: of the editor."""
    image = client.upload_image(Image.fromarray(OTHER_SCENE.picture().image), "layout.png")
    workflow = fill_layout(Workflow.shipped("19_plug_and_play"), OTHER_SCENE, image, steps=8)
    graph = workflow.fill("Prompt", text=prompt).fill("Sampler", cfg=guidance).graph
    title = workflow.node
    how = {"steps": 8, "scheduler": "normal", "cfg": 1.0, "denoise": 1.0, "iterations": 5, "label": "higher level"}
    texts = {"positive": [title("What the picture shows"), 0], "negative": [title("Negative prompt"), 0]}
    given = {"model": [title("Checkpoint"), 0], "latent": [title("Picture as latent"), 0]}
    graph["inverted"] = {"class_type": "ELInvertPicture", "inputs": {**given, **texts, **how, "try_back": False}}
    twin = graph[title("Picture and result together")]["inputs"]
    twin |= {"source_path": "recorded", "trajectory": ["inverted", 0]}
    del twin["reference"]
    if editor is None:
        del twin["editors"], graph[title("What is taken over")]
    else:
        node = graph[title("What is taken over")]
        node["class_type"], node["inputs"] = editor, {**EDITORS[editor], **inputs}
    return np.asarray(client.run(graph).images(title("Result"))[0]).astype(float)


def error(found: np.ndarray, expected: np.ndarray) -> float:
    """The mean square of the difference, of numbers up to 255."""
    return float(np.square(found - expected).mean())


@pytest.mark.parametrize(
    ("editor", "off"),
    [("ELPlugAndPlay", {"attention_end": 0.0, "feature_end": 0.0}), ("ELMutualSelfAttention", {"start": 1.0})],
)
def test_an_editor_beside_a_recorded_path_takes_over_what_was_recorded(client, editor, off):
    """With the picture's own prompt it comes back; with another one more of it is kept than without the editor."""
    picture = OTHER_SCENE.picture().image
    own = f"{OTHER_SCENE.reference.subject} on {OTHER_SCENE.reference.scene}"
    assert error(beside_the_inversion(client, editor, own, 1.0), picture) < 255**2 / 10**2.3
    plain = beside_the_inversion(client, None, OTHER_SCENE.prompt, 3.0)
    assert np.array_equal(beside_the_inversion(client, editor, OTHER_SCENE.prompt, 3.0, **off), plain)
    edited = beside_the_inversion(client, editor, OTHER_SCENE.prompt, 3.0)
    assert error(edited, picture) < 0.95 * error(plain, picture)


@pytest.mark.parametrize("name", [CROSS, EYE])
def test_the_structure_gets_the_others_colours(client, name):
    """The red car becomes blue where it stands, and stays red when nothing is taken over."""
    images = [client.upload_image(Image.fromarray(car.image), f"look-{car.kind.colour}.png") for car in CARS]
    workflow = fill_look(Workflow.shipped(name), "a photo of a car", *images, steps=8)
    off = workflow.fill("What is taken over", guidance=0.0, statistics_start=1.0)
    red_over_blue = []
    for each in (workflow, off):
        (picture,) = client.run(each.graph).images(each.node("Result"))
        red, _, blue = np.asarray(picture).astype(float)[CARS[0].mask].mean(0)
        red_over_blue.append(red - blue)
    assert red_over_blue[0] < -20
    assert red_over_blue[1] > 20


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        (CROSS, {"appearance_path": "recorded"}, "appearance_path is 'recorded', but no trajectory is connected"),
        (EYE, {"start": 0.9, "end": 0.2}, "0 <= start <= end <= 1"),
        (CROSS, {"layers": "output.99"}, "no self-attention layer is called 'output.99'"),
    ],
)
def test_mistakes_in_what_gives_an_appearance_reach_the_user(client, name, inputs, words):
    images = [client.upload_image(Image.fromarray(car.image), f"look-{car.kind.colour}.png") for car in CARS]
    workflow = fill_look(Workflow.shipped(name), "a photo of a car", *images, steps=2)
    with pytest.raises(ComfyError, match=words):
        client.run(workflow.fill("What is taken over", **inputs).graph)


@pytest.mark.parametrize(
    ("title", "inputs", "words"),
    [
        ("What is taken over", {"layers": "output.99"}, "no self-attention layer is called 'output.99'"),
        ("What is taken over", {"start": 0.9, "end": 0.2}, "0 <= start <= end <= 1"),
    ],
)
def test_mistakes_in_masactrl_reach_the_user(client, title, inputs, words):
    workflow = fill_masactrl(Workflow.shipped("18_masactrl"), CASE, steps=2)
    with pytest.raises(ComfyError, match=words):
        client.run(workflow.fill(title, **inputs).graph)


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
