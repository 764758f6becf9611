"""The server's route for the inspector's sliders, on a real server: its outlines are those of the nodes' masks."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import pytest
import requests

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.server import ComfyServer

PROMPT = "a red dog and a small dog on the beach"


def address(server: ComfyServer) -> str:
    return f"{server.url}/api/explainable_latents/outline"


def enclosed(answer: dict[str, Any]) -> np.ndarray:
    """The places that have an odd number of the outline's upright lines on their left."""
    width, height = answer["size"]
    crossed = np.zeros((height, width), int)
    for x, top, x_end, bottom in np.asarray(answer["lines"], int).reshape(-1, 4):
        if x == x_end:
            crossed[top:bottom, x:] += 1
    return crossed % 2 == 1


def graph(**to_mask: Any) -> dict[str, Any]:
    """Probe two empty pictures, show the maps, and make masks of them through both filters."""
    mask = {"words": "", "rule": "otsu", "value": 0.2, "combine": "union", "invert": False, "channels": "together"}
    nodes = {
        "model": ("CheckpointLoaderSimple", {"ckpt_name": "toy.safetensors"}),
        "latent": ("EmptyLatentImage", {"width": 96, "height": 64, "batch_size": 2}),
        "prompt": ("CLIPTextEncode", {"clip": ["model", 1], "text": PROMPT}),
        "words": ("ELParseSubjects", {"clip": ["model", 1], "text": PROMPT, "parser": "rules", "override": "dog"}),
        "probe": ("ELProbeAttention", {"model": ["model", 0], "positive": ["prompt", 0], "latent": ["latent", 0]}),
        "overlay": ("ELSaliencyOverlay", {"saliency": ["probe", 0], "colormap": "fire", "opacity": 0.5}),
        "smooth": ("ELSmoothSaliency", {"maps": ["probe", 0], "sigma": 1.5, "size": 5}),
        "dilate": ("ELDilateSaliency", {"maps": ["smooth", 0], "operation": "dilate", "size": 3, "iterations": 1}),
        "mask": ("ELSaliencyToMask", {"saliency": ["dilate", 0], **mask, **to_mask}),
        "pictures": ("MaskToImage", {"mask": ["mask", 0]}),
        "shown": ("SaveImage", {"images": ["pictures", 0], "filename_prefix": "masks/tuned"}),
    }
    nodes["words"][1]["words"] = "head noun"
    nodes["overlay"][1]["scale"] = "shared"
    nodes["probe"][1].update(subjects=["words", 0], noise_level=0.3, seed=1, layers="all")
    nodes["probe"][1].update(resize="nearest", share="all tokens", all_words=True, clip=["model", 1])
    nodes["probe"][1].update(look_for="dog#2, cat", reading="scores")
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


FILTERS = [["smooth", 1.5, 5], ["dilate", 3, 1]]
TUNED = {"item": 0, "filters": FILTERS, "shaping": {"rule": "otsu", "value": 0.2, "combine": "union"}}


@pytest.mark.parametrize(
    ("to_mask", "request_changes"),
    [
        ({}, {}),
        ({"words": "dog", "combine": "sum", "invert": True}, {"words": "dog"}),
        ({"words": "dog#2", "rule": "mean + k·std", "value": -0.3}, {"words": "dog#2"}),
        ({"words": "cat", "rule": "min-max", "value": 0.5, "parts": "largest", "fill_holes": True}, {"words": "cat"}),
    ],
    ids=["union", "sum of two", "one of two", "scores"],
)
def test_the_outline_is_that_of_the_mask_the_nodes_make(
    client: ComfyClient, server: ComfyServer, to_mask: dict, request_changes: dict
):
    result = client.run(graph(**to_mask))
    masks = [np.asarray(image.convert("L"))[::8, ::8] > 127 for image in result.images("shown")]
    assert len(masks) == 2
    shaping = {**TUNED["shaping"], **{name: value for name, value in to_mask.items() if name != "words"}}
    (maps,) = result.outputs["overlay"]["el_inspector"]
    for item, mask in enumerate(masks):
        asked = {**TUNED, **request_changes, "maps": maps["file"], "item": item, "shaping": shaping}
        answer = requests.post(address(server), json=asked, timeout=60, proxies={"no_proxy": "*"}).json()
        assert np.array_equal(enclosed(answer), mask)
        assert answer["inside"] == pytest.approx(mask.mean(), abs=1e-6)
        assert not answer["is_soft"]


@pytest.fixture(scope="module")
def name(server: ComfyServer) -> str:
    """The maps of a run."""
    with ComfyClient(server) as client:
        (maps,) = client.run(graph()).outputs["overlay"]["el_inspector"]
    return maps["file"]


@pytest.fixture
def ask(server: ComfyServer, name: str):
    """Ask for an outline; None leaves a value out."""

    def answer(**values: Any) -> requests.Response:
        asked = {key: value for key, value in {"maps": name, **TUNED, **values}.items() if value is not None}
        # as Python writes it: NaN and Infinity, too
        return requests.post(address(server), data=json.dumps(asked), timeout=60, proxies={"no_proxy": "*"})

    return answer


def test_the_maps_that_show_attention_puts_out_are_others_than_those_it_shows(client: ComfyClient, server: ComfyServer):
    """It shows the mean and every step; here it puts out the sum over the steps."""
    nodes = graph(rule="of maximum", value=0.7)
    kept = {name: nodes[name] for name in ("model", "latent", "pictures", "shown")}
    stock = {"seed": 1, "steps": 2, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0}
    words = {"text": PROMPT, "override": "dog", "negative": "", "parser": "rules", "words": "head noun"}
    made = {"model": ["model", 0], "clip": ["model", 1], "latent_image": ["latent", 0], "over_steps": "sum"}
    generate = {"class_type": "ELShowAttention", "inputs": {**made, **stock, **words}}
    mask = {"class_type": "ELSaliencyToMask", "inputs": {**nodes["mask"]["inputs"], "saliency": ["generate", 2]}}
    result = client.run({**kept, "generate": generate, "mask": mask})
    first = np.asarray(result.images("shown")[0].convert("L"))[::8, ::8] > 127
    (maps,) = result.outputs["generate"]["el_inspector"]
    asked = {"maps": maps["file"], "item": 0, "shaping": {"rule": "of maximum", "value": 0.7, "combine": "union"}}
    output, shown = (
        requests.post(address(server), json={**asked, "of_output": each}, timeout=60, proxies={"no_proxy": "*"}).json()
        for each in (True, False)
    )
    assert np.array_equal(enclosed(output), first)
    assert not np.array_equal(enclosed(shown), first)  # the union over all steps is larger


def refining(source: str, refine: int) -> dict[str, Any]:
    """Maps refined so often, shown, and their mask by Otsu: of a probe, of a run that is captured, or by gradients."""
    nodes = graph(words="dog")
    for name in ("smooth", "dilate"):
        del nodes[name]
    capture, sampler = (
        {"class_type": kind, "inputs": {"model": ["model", 0], **inputs}}
        for kind, inputs in (("ELCaptureAttention", {"start_percent": 0.0, "end_percent": 1.0}), ("KSampler", {}))
    )
    reading = ("subjects", "layers", "resize", "share", "all_words", "clip", "look_for", "reading")
    capture["inputs"].update({name: nodes["probe"]["inputs"][name] for name in reading})
    sampler["inputs"].update(seed=1, steps=2, cfg=3.0, sampler_name="euler", scheduler="normal", denoise=1.0)
    sampler["inputs"].update(model=["probe", 0], positive=["prompt", 0], negative=["prompt", 0])
    sampler["inputs"].update(latent_image=["latent", 0])
    read = {"attention": ["probe", 1], "samples": ["sampler", 0], "role": "all", "over_steps": "sum"}
    maps = ["probe", 0]
    if source == "capture":
        saliency = {"class_type": "ELAttentionSaliency", "inputs": {**read, "each_layer": False}}
        nodes.update(probe=capture, sampler=sampler, maps=saliency)
        maps = ["maps", 0]
    elif source == "gradients":
        common = {name: nodes["probe"]["inputs"][name] for name in ("model", "positive", "latent", "subjects", "seed")}
        how = {"polarity": "absolute", "definition": "Abs-Grad-SAM", "solver": "structured", "layer": "last"}
        nodes["probe"] = {"class_type": "ELGradientSaliency", "inputs": {**common, **how, "noise_level": 0.3}}
    nodes["probe"]["inputs"]["refine"] = refine
    nodes["overlay"]["inputs"]["saliency"] = nodes["mask"]["inputs"]["saliency"] = maps
    return nodes


@pytest.mark.parametrize("source", ["probe", "capture", "gradients"])
def test_the_outline_of_less_refined_maps_is_that_of_a_run_with_less(
    client: ComfyClient, server: ComfyServer, source: str
):
    (maps,) = client.run(refining(source, 2)).outputs["overlay"]["el_inspector"]

    def asked(refine: int, item: int = 0) -> dict[str, Any]:
        shaping = {"rule": "otsu", "combine": "union"}
        body = {"maps": maps["file"], "item": item, "words": "dog", "refine": refine, "shaping": shaping}
        return requests.post(address(server), json=body, timeout=60, proxies={"no_proxy": "*"}).json()

    outlines = []
    for refine in range(3):
        made = client.run(refining(source, refine)).images("shown")
        for item, image in enumerate(made):
            mask = np.asarray(image.convert("L"))[::8, ::8] > 127
            outlines.append(enclosed(asked(refine, item)))
            assert np.array_equal(outlines[-1], mask)
    assert len({outline.tobytes() for outline in outlines}) > 2
    assert "no maps with refine 3, only with 0, 1, 2" in asked(3)["problem"]


@pytest.mark.parametrize("source", ["probe", "capture"])
def test_the_file_has_every_word_as_a_run_with_less_has_it(client: ComfyClient, server: ComfyServer, source: str):
    """Words that are numbered, looked for, read as scores and without a role: their values, to the bit."""

    def shown(refine: int) -> tuple[dict[str, Any], np.ndarray]:
        (maps,) = client.run(refining(source, refine)).outputs["overlay"]["el_inspector"]
        query = {"filename": maps["file"], "type": maps["type"]}
        data = requests.get(f"{server.url}/view", params=query, timeout=60, proxies={"no_proxy": "*"}).content
        (length,) = struct.unpack_from("<I", data)
        header = json.loads(data[4 : 4 + length])
        return header, np.frombuffer(data, np.uint8, np.prod(header["shape"]), 4 + length).reshape(header["shape"])

    whole, levels = shown(2)
    assert {"dog#1", "dog#2", "dog#2 (scores)", "cat", "red"} <= set(whole["words"])
    assert whole["powers"] == [0, 1, 2]
    count = len(whole["words"])
    for power in range(3):
        header, alone = shown(power)
        own = slice(power * count, (power + 1) * count)
        assert header["words"] == whole["words"]
        assert np.array_equal(levels[own], alone[-count:])
        assert whole["peaks"][own] == header["peaks"][-count:]


def test_a_soft_mask_is_outlined_where_it_is_one_half(ask):
    shaping = {"rule": "otsu", "smooth_sigma": 2.0, "smooth_size": 5, "smooth_and_dilate": "after the threshold"}
    answer = ask(filters=[], shaping={**shaping, "combine": "union"}).json()
    assert answer["is_soft"]
    plain = ask(filters=[], shaping={"rule": "otsu", "combine": "union"}).json()
    assert not plain["is_soft"]
    assert 0 < answer["inside"] < 1


def test_what_the_nodes_would_fail_with_is_told(ask):
    assert "quantile 2.0 must lie between 0" in ask(shaping={"rule": "quantile", "value": 2}).json()["problem"]
    assert "no map of 'cow'; there are maps of: dog#1, dog#2" in ask(words="cow").json()["problem"]
    assert "no map number 99" in ask(number=99).json()["problem"]
    assert "smoothing size 4" in ask(filters=[["smooth", 1, 4]]).json()["problem"]


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"maps": None}, "maps has to be a text"),
        ({"maps": 5}, "maps has to be a text"),
        ({"item": -1}, "item has to be a whole number from 0"),
        ({"item": 0.5}, "item has to be a whole number"),
        ({"item": True}, "item has to be a whole number"),
        ({"item": 2}, "item 2: there are 2 pictures"),
        ({"item": 10**400}, "item has to be a whole number"),
        ({"shaping": None}, "needs shaping"),
        ({"shaping": []}, "needs shaping"),
        ({"shaping": {"rule": "median"}}, "rule 'median' is not one of"),
        ({"shaping": {"layers": 5}}, "shaping has no 'layers'"),
        ({"shaping": {"invert": 1}}, "invert has to be true or false"),
        ({"shaping": {"value": float("nan")}}, "value has to be a number from -10 to 10"),
        ({"shaping": {"value": float("inf")}}, "value has to be a number"),
        ({"shaping": {"value": "0.5"}}, "value has to be a number"),
        ({"shaping": {"smooth_size": 10**9}}, "smooth_size has to be a whole number from 1 to 255"),
        ({"shaping": {"dilate_iterations": 1e30}}, "dilate_iterations has to be a whole number from 0 to 64"),
        ({"shaping": {"points": "[" * 20_000}}, "points has to be a text of at most 10000 letters"),
        ({"filters": {}}, "filters has to be a list of at most 8"),
        ({"filters": [["smooth", 1, 3]] * 9}, "filters has to be a list of at most 8"),
        ({"filters": [["smooth", 1]]}, "a filter is"),
        ({"filters": [["blur", 1, 3]]}, "a filter is"),
        ({"filters": [[[], 1, 3]]}, "a filter is"),
        ({"filters": [["dilate", 1.5, 3]]}, "dilate_size has to be a whole number"),
        ({"of_output": 1}, "of_output has to be true or false"),
        ({"words": ["dog"]}, "words has to be a text"),
        ({"words": "dog" * 10_000}, "words has to be a text of at most"),
        ({"frame": 5}, "frame has to be a text"),
        ({"number": "1"}, "number has to be a whole number"),
        ({"channels": "none"}, "channels 'none' is not one of"),
        ({"refine": 9}, "refine has to be a whole number from 0 to 8"),
        ({"refine": True}, "refine has to be a whole number"),
    ],
)
def test_a_request_of_another_kind_is_refused(ask, values: dict[str, Any], error: str):
    answer = ask(**values)
    assert answer.status_code == 400
    assert error in answer.json()["error"]


def test_a_body_that_is_no_small_json_object_is_refused(server: ComfyServer):
    for route in ("outline", "words"):
        where = f"{server.url}/api/explainable_latents/{route}"
        for body in (b"", b"{", b"[1]", b"\xff", b"[" * 100_000, b'{"maps": "' + b"a" * (1 << 19) + b'"}'):
            answer = requests.post(where, data=body, timeout=60, proxies={"no_proxy": "*"})
            assert answer.status_code == 400, body[:20]
            assert answer.json()["error"].startswith("the request ")


@pytest.mark.parametrize("file", ["explainable_latents_gone.maps", "", "../../etc/passwd"])
def test_maps_that_are_not_kept_are_gone_not_those_of_another_run(ask, file: str):
    answer = ask(maps=file)
    assert answer.status_code == 410
    assert answer.json() == {"error": "these maps are no longer there"}
