"""Abs-Grad-SAM Saliency on the real server: from a picture to heat maps, mistakes, and a cancel in the middle."""

from __future__ import annotations

import re
import threading

import numpy as np
import pytest
import websocket
from PIL import Image

from tests.tools.comfyui.errors import ComfyError, Interrupted
from tests.tools.comfyui.paths import toy_checkpoint
from tests.tools.toy_world.cases import keep_the_context
from tests.tools.workflows.graphs import Workflow
from tests.tools.workflows.pipelines import run_case

CASE = keep_the_context()[0]
PROMPT = "a dog on the beach"

# What a binary message begins with that shows text on a node; the node's id and the text follow.
PROGRESS_TEXT = (3).to_bytes(4, "big")


def graph(client, seed=1, solver="structured", text=PROMPT, size=128, layer="last") -> dict:
    """Load a picture, parse its prompt, derive; show the overlay and the saliency's raw maps."""
    picture = Image.fromarray(CASE.picture().image).resize((size, size))
    image = client.upload_image(picture, f"gradients-{size}.png")
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": toy_checkpoint().name}},
        "image": {"class_type": "LoadImage", "inputs": {"image": image}},
        "latent": {"class_type": "VAEEncode", "inputs": {"pixels": ["image", 0], "vae": ["model", 2]}},
        "prompt": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": PROMPT}},
        "words": {
            "class_type": "ELParseSubjects",
            "inputs": {"clip": ["model", 1], "text": text, "parser": "rules", "override": "", "words": "head noun"},
        },
        "saliency": {
            "class_type": "ELGradientSaliency",
            "inputs": {
                "model": ["model", 0], "positive": ["prompt", 0], "latent": ["latent", 0], "subjects": ["words", 0],
                "noise_level": 0.5, "seed": seed, "polarity": "absolute", "solver": solver,
                "definition": "Abs-Grad-SAM", "layer": layer,
            },
        },
        "overlay": {
            "class_type": "ELSaliencyOverlay",
            "inputs": {
                "saliency": ["saliency", 0], "image": ["image", 0], "colormap": "fire", "opacity": 0.6,
                "scale": "each map",
            },
        },
        "raw": {"class_type": "MaskToImage", "inputs": {"mask": ["overlay", 2]}},
        "maps": {"class_type": "SaveImage", "inputs": {"images": ["raw", 0], "filename_prefix": "gradients/maps"}},
    }  # fmt: skip


def maps(result) -> list[np.ndarray]:
    return [np.asarray(image.convert("L")) for image in result.images("maps")]


def test_a_picture_gives_a_map_per_word_a_preview_and_progress(client):
    seen = []
    result = client.run(graph(client), seen.append)
    (preview,) = result.images("saliency")
    assert preview.size[0] > preview.size[1] > 200  # two words side by side
    found = maps(result)
    assert [m.shape for m in found] == [(16, 16), (16, 16)]
    assert all(m.max() == 255 and m.std() > 1 for m in found)
    assert not np.array_equal(*found)
    reported = [p for p in seen if p.node_id == "saliency"]
    assert reported[-1].value == reported[-1].maximum


def test_both_solvers_agree_and_another_seed_differs(client):
    structured, exact, other = (
        maps(client.run(graph(client, seed, solver, size=96)))
        for seed, solver in ((2, "structured"), (2, "exact"), (3, "structured"))
    )
    for fast, slow, changed in zip(structured, exact, other, strict=True):
        assert np.abs(fast.astype(int) - slow).max() <= 1
        assert np.abs(fast.astype(int) - changed).max() > 1


def test_an_earlier_layer_by_the_exact_solver(client):
    """The structured solver says what to choose instead, and so does a name of several layers."""
    last = maps(client.run(graph(client, 7, "exact", size=96)))
    address = f"{client.url.replace('http', 'ws', 1)}/ws?clientId=listener"
    listener = websocket.create_connection(address, timeout=60, http_no_proxy=["*"])
    try:
        earlier = maps(client.run(graph(client, 7, "exact", size=96, layer="output.2.0")))
        shown = next(message for message in iter(listener.recv, "") if message[:4] == PROGRESS_TEXT)
    finally:
        listener.close()
    assert re.search(rb"saliencyexact solver: 576 backward passes, about \d+ (seconds|minutes)$", shown)
    assert not np.array_equal(last[0], earlier[0])
    with pytest.raises(ComfyError, match=r"further blocks follow the layer output.2.0.*Choose the solver 'exact'"):
        client.run(graph(client, 7, size=96, layer="output.2.0"))
    with pytest.raises(ComfyError, match="layer 'output' is not one layer; choose last, or one of: output"):
        client.run(graph(client, 7, size=96, layer="output"))


def test_the_aggregated_definition_has_one_map_for_all_channels(client):
    """One backward pass through the whole network, whose weights the host loaded in inference mode."""
    graphs = [graph(client, seed=8) for _ in range(2)]
    graphs[1]["saliency"]["inputs"]["definition"] = "aggregated"
    published, aggregated = (maps(client.run(g)) for g in graphs)
    for one, other in zip(published, aggregated, strict=True):
        assert other.max() == 255
        assert not np.array_equal(one, other)


def test_words_of_another_prompt_are_an_error(client):
    with pytest.raises(
        ComfyError, match=r"were parsed from .very very .* but the prompt that is sampled is .a dog on the beach."
    ):
        client.run(graph(client, seed=4, text=" ".join(["very"] * 90) + " nice dog on the beach"))


def test_cancel_stops_in_the_middle_and_the_next_run_is_right(client):
    expected = maps(client.run(graph(client, seed=5)))

    def cancel(progress):
        if progress.node_id == "saliency" and 0 < progress.value < progress.maximum:
            threading.Thread(target=client.interrupt).start()

    with pytest.raises(Interrupted):
        client.run(graph(client, seed=6, solver="exact", size=256), cancel)
    again = graph(client, seed=5)
    again["saliency"]["inputs"]["polarity"] = "positive"
    client.run(again)
    fresh = graph(client, seed=5)
    fresh["maps"]["inputs"]["filename_prefix"] = "gradients/again"
    assert all(np.array_equal(a, b) for a, b in zip(maps(client.run(fresh)), expected, strict=True))


def test_a_masked_run_finds_its_masks_by_gradients(client):
    """The shipped masked pipeline with Mask from Abs-Grad-SAM in place of Mask from Attention."""
    workflow = Workflow.shipped("02_aggregated_attention").fill("Sampler", manipulate_at="2, 4")
    masking = workflow.graph[workflow.node("Where the subject is")]
    masking["class_type"] = "ELMaskFromGradient"
    masking["inputs"] = {
        "subjects": masking["inputs"]["subjects"], "role": "subject", "rule": "mean + k·std", "value": 0.5,
        "combine": "union", "invert": False, "smooth_sigma": 6.0, "smooth_size": 3, "dilate_size": 3,
        "dilate_iterations": 1, "channels": "each", "polarity": "absolute", "solver": "structured",
        "layer": "last",
    }  # fmt: skip
    result = run_case(client, workflow, CASE, steps=12)
    (picture,) = result.images(workflow.node("Result"))
    assert np.asarray(picture).std() > 5
    masks = [np.asarray(image.convert("L")) / 255 for image in result.images(workflow.node("Masks"))]
    assert masks
    for mask in masks:
        assert set(np.round(4 * np.unique(mask), 1)) <= {0.0, 1.0, 2.0, 3.0, 4.0}  # the mean over four channels
        assert 0.02 < mask.mean() < 0.98
