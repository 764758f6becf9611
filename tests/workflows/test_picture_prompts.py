"""Prompts that ComfyUI encodes with a picture for Qwen-Image-Edit, on the real server with small random models."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.tools.comfyui.errors import ComfyError
from tests.workflows.sampled import Graph, captured_maps, node

TEXT = "make the dog on the beach a cat"
NODES = {"TextEncodeQwenImageEdit": "image", "TextEncodeQwenImageEditPlus": "image1"}
# What ComfyUI puts around the text there; what is before the second marker of a turn is cut off.
BEFORE = {
    "TextEncodeQwenImageEdit": "<|vision_start|>{}<|vision_end|>",
    "TextEncodeQwenImageEditPlus": "Picture 1: <|vision_start|>{}<|vision_end|>",
}
TURN = "<|im_start|>system\nx<|im_end|>\n<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


def graph(kind: str, picture: str, parsed: str, text: str = TEXT) -> Graph:
    """One step on the text, encoded with the picture, of which the words of `parsed` are watched."""
    settings = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
    encoded = {"clip": ["clip", 0], "prompt": text, NODES[kind]: ["picture", 0]}
    watched = {"layers": "all", "resize": "nearest", "share": "all tokens", "start_percent": 0.0, "end_percent": 1.0}
    chosen = {"override": "dog", "parser": "rules", "words": "head noun"}
    return {
        "model": node("UNETLoader", unet_name="qwen_image_fp8_e4m3fn.safetensors", weight_dtype="default"),
        "clip": node("CLIPLoader", clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image"),
        "picture": node("LoadImage", image=picture),
        "positive": node(kind, **encoded),
        "parse": node("ELParseSubjects", clip=["clip", 0], text=parsed, **chosen),
        "capture": node("ELCaptureAttention", model=["model", 0], subjects=["parse", 0], **watched),
        "latent": node("EmptySD3LatentImage", width=128, height=96, batch_size=1),
        "sampler": node(
            "KSampler",
            model=["capture", 0],
            positive=["positive", 0],
            negative=["positive", 0],
            latent_image=["latent", 0],
            **settings,
        ),
        "maps": captured_maps("all"),
        "numbers": node("TestNumbers", saliency=["maps", 0]),
    }


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("kind", NODES)
def test_words_behind_a_picture_are_found_from_the_end(client, kind):
    """The same rows as counted from the front, with as many tokens in the template as the picture has rows."""
    picture = client.upload_image(Image.fromarray(np.arange(3 * 64**2, dtype=np.uint8).reshape(64, 64, 3)), "seen.png")
    with pytest.raises(ComfyError, match=r"makes \d+ rows of 'a dog', but .* sampled has \d+") as error:
        client.run(graph(kind, picture, "a dog"))
    rows = int(re.search(r"sampled has (\d+)", str(error.value))[1])
    found = json.loads(client.run(graph(kind, picture, TEXT)).text("numbers"))
    pads = rows
    for _ in range(2):  # too many at first, and then those that are over are left out
        spelt = TURN.format(BEFORE[kind].format("1" * pads) + TEXT)  # a digit is a token
        try:
            counted = json.loads(client.run(graph(kind, picture, spelt)).text("numbers"))
        except ComfyError as other:
            pads -= int(re.search(r"makes (\d+) rows", str(other))[1]) - rows
    assert np.allclose(found["dog"], counted["dog"], rtol=1e-5, atol=0)
    assert np.std(found["dog"]) > 0.05 * np.mean(found["dog"])


@pytest.mark.usefixtures("small_models")
def test_another_text_with_the_picture_is_an_error(client):
    kind = "TextEncodeQwenImageEdit"
    picture = client.upload_image(Image.new("RGB", (64, 64)), "seen.png")
    with pytest.raises(ComfyError, match=r"encoded with pictures only where a Text Encode .* encodes this very text"):
        client.run(graph(kind, picture, TEXT, "make the dog a horse on the beach"))
