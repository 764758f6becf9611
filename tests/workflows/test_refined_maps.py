"""*refine* of Capture Attention, Probe Attention, Mask from Attention and Abs-Grad-SAM Saliency on the real server."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tools.comfyui.client import ComfyClient, Result
from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.paths import toy_checkpoint
from tests.tools.toy_world.cases import keep_the_context
from tests.tools.toy_world.judge import judge_images, load_judge

CASE = keep_the_context()[0]

Graph = dict[str, dict[str, Any]]

READING = {"layers": "all", "resize": "nearest", "share": "all tokens"}
OTSU = {"rule": "otsu", "value": 0.0, "combine": "sum", "invert": False}
FILTERS = {"smooth_sigma": 0.0, "smooth_size": 3, "dilate_size": 3, "dilate_iterations": 0}


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph(client: ComfyClient, prompt: str, **nodes: dict[str, Any]) -> Graph:
    """A picture of the toy world, a prompt and its words, and these nodes, whose `masks` and `picture` are shown."""
    image = client.upload_image(Image.fromarray(CASE.picture().image), "refined.png")
    words = {"text": prompt, "parser": "rules", "override": "", "words": "head noun"}
    shown = {
        name: node("SaveImage", images=[name, 0], filename_prefix=f"refined/{name}")
        for name in ("picture", "masks")
        if name in nodes
    }
    return {
        "model": node("CheckpointLoaderSimple", ckpt_name=toy_checkpoint().name),
        "image": node("LoadImage", image=image),
        "latent": node("VAEEncode", pixels=["image", 0], vae=["model", 2]),
        "prompt": node("CLIPTextEncode", clip=["model", 1], text=prompt),
        "nothing": node("CLIPTextEncode", clip=["model", 1], text=""),
        "words": node("ELParseSubjects", clip=["model", 1], **words),
        **nodes,
        **{f"shown {name}": each for name, each in shown.items()},
    }


def sampler(class_type: str, **inputs: Any) -> dict[str, Any]:
    settings = {"seed": 4, "steps": 12, "cfg": 3.0, "sampler_name": "euler", "scheduler": "normal", "denoise": 0.8}
    conditionings = {"positive": ["prompt", 0], "negative": ["nothing", 0], "latent_image": ["latent", 0]}
    return node(class_type, **settings, **conditionings, **inputs)


def masks_of(saliency: list, word: str) -> dict[str, dict[str, Any]]:
    return {
        "mask": node("ELSaliencyToMask", saliency=saliency, words=word, channels="together", **OTSU),
        "masks": node("MaskToImage", mask=["mask", 0]),
    }


def probed(client: ComfyClient, refine: int) -> Graph:
    own = {"positive": ["prompt", 0], "latent": ["latent", 0], "subjects": ["words", 0], "noise_level": 0.5, "seed": 1}
    probe = node("ELProbeAttention", model=["model", 0], **own, **READING, refine=refine)
    subject = CASE.reference.subject
    return graph(client, f"{subject} on {CASE.scene}", probe=probe, **masks_of(["probe", 0], subject))


def explained(client: ComfyClient, refine: int) -> Graph:
    own = {"positive": ["prompt", 0], "latent": ["latent", 0], "subjects": ["words", 0], "noise_level": 0.5, "seed": 1}
    how = {"polarity": "absolute", "definition": "Abs-Grad-SAM", "solver": "structured", "layer": "last"}
    node_of = node("ELGradientSaliency", model=["model", 0], **own, **how, refine=refine, refine_layers="output")
    subject = CASE.reference.subject
    return graph(client, f"{subject} on {CASE.scene}", explained=node_of, **masks_of(["explained", 0], subject))


def captured(client: ComfyClient, refine: int) -> Graph:
    own = {"subjects": ["words", 0], "start_percent": 0.0, "end_percent": 1.0}
    reading = {"attention": ["capture", 1], "samples": ["sampled", 0], "role": "all", "over_steps": "last"}
    return graph(
        client,
        CASE.prompt,
        capture=node("ELCaptureAttention", model=["model", 0], **own, **READING, refine=refine),
        sampled=sampler("KSampler", model=["capture", 0]),
        picture=node("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
        saliency=node("ELAttentionSaliency", **reading, each_layer=False),
        **masks_of(["saliency", 0], CASE.subject),
    )


def masked(client: ComfyClient, refine: int) -> Graph:
    plan = {"manipulate_at": "8", "inside": "keep", "outside": "reference", "reference": ["latent", 0]}
    timesteps = {"inside_timestep": 680, "outside_timestep": 80}
    how = {"role": "subject", **OTSU, **FILTERS, "layers": "all", "refine": refine}
    return graph(
        client,
        CASE.prompt,
        masking=node("ELMaskFromAttention", subjects=["words", 0], **how),
        sampled=sampler("ELMaskedLatentKSampler", model=["model", 0], masking=["masking", 0], **plan, **timesteps),
        picture=node("VAEDecode", samples=["sampled", 0], vae=["model", 2]),
        masks=node("MaskToImage", mask=["sampled", 1]),
    )


def mask(result: Result) -> np.ndarray:
    (found,) = result.images("shown masks")
    return np.asarray(found.convert("L")) > 127


def picture(result: Result) -> np.ndarray:
    (made,) = result.images("shown picture")
    return np.asarray(made.convert("RGB"))


def drawn(result: Result) -> np.ndarray:
    """Where the judge sees the subject that was drawn."""
    pixels = torch.from_numpy(picture(result).copy()).permute(2, 0, 1)[None].float() / 255
    (name,), _, found = judge_images(load_judge(), pixels)
    assert name == CASE.subject
    return found[0].numpy()


def iou(one: np.ndarray, other: np.ndarray) -> float:
    return (one & other).sum() / (one | other).sum()


def test_a_word_of_a_picture_is_found_up_to_its_outline(client):
    truth = CASE.picture().mask
    plain, refined = (iou(mask(client.run(probed(client, refine))), truth) for refine in (0, 1))
    assert refined > plain + 0.1
    assert refined > 0.7


def test_what_depends_on_a_word_is_found_up_to_its_outline(client):
    truth = CASE.picture().mask
    plain, refined = (iou(mask(client.run(explained(client, refine))), truth) for refine in (0, 1))
    assert refined > plain + 0.05
    assert refined > 0.6


def test_a_capture_gives_the_same_picture_and_a_mask_of_what_was_drawn(client):
    plain, refined = (client.run(captured(client, refine)) for refine in (0, 1))
    assert np.array_equal(picture(plain), picture(refined))
    truth = drawn(refined)
    assert iou(mask(refined), truth) > iou(mask(plain), truth) + 0.1


def test_a_mask_found_while_sampling_follows_what_is_drawn(client):
    plain, refined = (client.run(masked(client, refine)) for refine in (0, 1))
    assert iou(mask(refined), drawn(refined)) > iou(mask(plain), drawn(plain)) + 0.1


def test_more_than_eight_is_refused(client):
    with pytest.raises(ComfyError, match="refine"):
        client.run(probed(client, 9))
