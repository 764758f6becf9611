"""Inversion and DiffEdit on the real server, by the shipped workflows."""

from __future__ import annotations

import re

import numpy as np
import pytest
from PIL import Image

from tests.tools.comfyui.errors import ComfyError
from tests.tools.toy_world.cases import keep_the_context
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import fill_inversion

CASE = keep_the_context()[2]
OLD = f"{CASE.reference.subject} on {CASE.reference.scene}"
STEPS = 6


def filled(client, name: str, after: str) -> Workflow:
    image = client.upload_image(Image.fromarray(CASE.picture().image), "to-edit.png")
    return fill_inversion(Workflow.shipped(name), image, OLD, after, STEPS)


def pixels(result, workflow: Workflow, title: str) -> np.ndarray:
    return np.asarray(result.images(workflow.node(title))[0].convert("RGB")).astype(int)


def share_changed(result, workflow: Workflow) -> float:
    """The share of the picture's pixels that are clearly others in the result."""
    original = CASE.picture().image.astype(int)
    return (np.abs(pixels(result, workflow, "Result") - original).max(-1) > 40).mean()


def test_the_report_has_the_round_trip_and_the_edit_changes_the_picture(client):
    """Also in decibels, since the workflow connects the VAE: above 30, what differs is hardly seen."""
    workflow = filled(client, "16a_inversion", CASE.prompt)
    result = client.run(workflow.graph)
    report = result.text(workflow.node("Invert"))
    assert "DDIM inversion with 5 fixed-point iterations in 6 steps" in report
    assert float(re.search(r"latent itself: ([\d.]+) dB", report)[1]) > 30
    assert 0.02 < share_changed(result, workflow) < 0.9


def test_the_rule_of_two_steps_comes_back_by_its_own_sampler_at_any_guidance(client):
    """With the same prompt by a rounding of the pixels, with another one not; the report says how close it comes."""
    workflow = filled(client, "16a_inversion", CASE.prompt)
    graph, node = workflow.graph, Workflow(workflow.graph).node
    graph[node("Invert")]["inputs"] |= {"rule": "two steps (O-BELM)", "cfg": 3.0, "iterations": 0}
    levels = {"model": [node("Checkpoint"), 0], "scheduler": "normal", "steps": STEPS, "denoise": 1.0}
    graph["levels"] = {"class_type": "BasicScheduler", "inputs": levels}
    sampled = {"model": [node("Checkpoint"), 0], "sampler": [node("Invert"), 4], "sigmas": ["levels", 0]}
    sampled |= {"negative": [node("Negative prompt"), 0], "latent_image": [node("Invert"), 1]}
    for name, text in (("own", "Source"), ("other", "Target")):
        how = {"add_noise": True, "noise_seed": 5, "cfg": 3.0, "positive": [node(text), 0]}
        graph[name] = {"class_type": "SamplerCustom", "inputs": {**sampled, **how}}
    pictures = {"vae": [node("Picture as latent"), 0], "own": ["own", 0], "other": ["other", 0]}
    for name, samples in pictures.items():
        vae = [node("Checkpoint"), 2]
        graph[f"{name} decoded"] = {"class_type": "VAEDecode", "inputs": {"samples": samples, "vae": vae}}
        graph[f"{name} shown"] = {"class_type": "PreviewImage", "inputs": {"images": [f"{name} decoded", 0]}}
    result = client.run(graph)
    assert float(re.search(r"latent itself: ([\d.]+) dB", result.text(node("Invert")))[1]) > 50
    vae, own, other = (np.asarray(result.images(f"{name} shown")[0]).astype(int) for name in pictures)
    assert np.abs(own - vae).max() <= 2
    assert (np.abs(other - vae).max(-1) > 40).mean() > 0.02


def test_edit_friendly_inversion_reports_its_steps_and_changes_the_picture(client):
    workflow = filled(client, "16b_edit_friendly", CASE.prompt)
    result = client.run(workflow.graph)
    assert "Edit-friendly DDPM inversion in 6 steps, of which 4" in result.text(workflow.node("Invert with noise"))
    assert 0.02 < share_changed(result, workflow) < 0.9


def test_diffedit_changes_the_mask_and_leaves_the_rest_to_the_vae(client):
    workflow = filled(client, "17_diffedit", CASE.prompt)
    plain = Workflow(workflow.graph)
    plain.graph["back"] = {
        "class_type": "VAEDecode",
        "inputs": {"samples": [plain.node("Picture as latent"), 0], "vae": [plain.node("Checkpoint"), 2]},
        "_meta": {"title": "What the VAE makes of it"},
    }
    plain.graph["shown"] = {
        "class_type": "PreviewImage",
        "inputs": {"images": ["back", 0]},
        "_meta": {"title": "The picture by the VAE"},
    }
    result = client.run(plain.graph)
    inside = pixels(result, plain, "Mask")[..., 0] > 127
    assert 0.02 < inside.mean() < 0.9
    changed = np.abs(pixels(result, plain, "Result") - pixels(result, plain, "The picture by the VAE")).max(-1)
    assert changed[inside].mean() > 4 * changed[~inside].mean()  # the VAE looks a little beyond a mask's edge


@pytest.mark.parametrize(
    ("name", "title", "inputs", "words"),
    [
        ("16a_inversion", "Sampler", {"steps": 7}, "schedule is not the inversion's"),
        ("16a_inversion", "Sampler", {"sampler_name": "uni_pc"}, "schedule is not the inversion's"),
        ("17_diffedit", "Sampler", {"denoise": 1.0}, "schedule is not the inversion's"),
    ],
)
def test_other_schedules_reach_the_user(client, name, title, inputs, words):
    with pytest.raises(ComfyError, match=words):
        client.run(filled(client, name, CASE.prompt).fill(title, **inputs).graph)
