"""Gaussian Smooth, Dilate and Saliency to Mask on the real server: from attention to masks for core nodes."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.tools.comfyui.errors import ComfyError
from tests.tools.comfyui.paths import toy_checkpoint
from tests.tools.toy_world.cases import keep_the_context

CASE = keep_the_context()[0]
PROMPT = f"a {CASE.reference.subject} on {CASE.scene}"


def shown(mask: list) -> dict:
    """Nodes that make a mask a picture the client can fetch."""
    return {
        "masks": {"class_type": "MaskToImage", "inputs": {"mask": mask}},
        "shown": {"class_type": "SaveImage", "inputs": {"images": ["masks", 0], "filename_prefix": "masks/made"}},
    }


def probe(client, width: int = 128, height: int = 128, batch: int = 1, **to_mask) -> dict:
    """Probe a picture, smooth, dilate, threshold, show. `to_mask` changes inputs of Saliency to Mask."""
    picture = Image.fromarray(CASE.picture().image).resize((width, height))
    image = client.upload_image(picture, f"mask-nodes-{width}x{height}.png")
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": toy_checkpoint().name}},
        "image": {"class_type": "LoadImage", "inputs": {"image": image}},
        "one": {"class_type": "VAEEncode", "inputs": {"pixels": ["image", 0], "vae": ["model", 2]}},
        "latent": {"class_type": "RepeatLatentBatch", "inputs": {"samples": ["one", 0], "amount": batch}},
        "prompt": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": PROMPT}},
        "words": {
            "class_type": "ELParseSubjects",
            "inputs": {
                "clip": ["model", 1], "text": PROMPT, "parser": "rules", "override": "", "words": "head noun",
            },
        },
        "probe": {
            "class_type": "ELProbeAttention",
            "inputs": {
                "model": ["model", 0], "positive": ["prompt", 0], "latent": ["latent", 0], "subjects": ["words", 0],
                "noise_level": 0.3, "seed": 1, "layers": "all", "resize": "nearest", "share": "all tokens",
            },
        },
        "smooth": {"class_type": "ELSmoothSaliency", "inputs": {"maps": ["probe", 0], "sigma": 1.0, "size": 3}},
        "dilate": {
            "class_type": "ELDilateSaliency",
            "inputs": {"maps": ["smooth", 0], "operation": "dilate", "size": 3, "iterations": 1},
        },
        "mask": {
            "class_type": "ELSaliencyToMask",
            "inputs": {
                "saliency": ["dilate", 0], "words": "", "rule": "otsu", "value": 0.2, "combine": "each",
                "invert": False, "channels": "together", **to_mask,
            },
        },
        **shown(["mask", 0]),
    }  # fmt: skip


def masks(result) -> list[np.ndarray]:
    return [np.asarray(image.convert("L")) / 255 for image in result.images("shown")]


def test_parts_of_a_mask_are_kept_and_holes_filled(client):
    """Of the maximum 0.35 leaves several parts of this map; what scipy finds in the mask's own pixels is the oracle."""
    how = {"rule": "of maximum", "value": 0.35, "combine": "sum"}
    (whole,) = masks(client.run(probe(client, **how)))
    parts, count = ndimage.label(whole, np.ones((3, 3)))
    sizes = np.bincount(parts.ravel())[1:]
    (largest,) = masks(client.run(probe(client, **how, parts="largest", fill_holes=True)))
    assert np.array_equal(largest, ndimage.binary_fill_holes(parts == 1 + sizes.argmax()))
    y, x = np.argwhere(parts == count)[0]
    (touched,) = masks(client.run(probe(client, **how, parts="touching points", points=f"[[{x + 0.5}, {y + 0.5}]]")))
    assert np.array_equal(touched, parts == count)


def test_a_word_is_found_where_it_is(client):
    subject, scene = masks(client.run(probe(client)))
    truth = CASE.picture().mask
    assert subject.shape == scene.shape == (128, 128)
    assert set(np.unique(subject)) == {0.0, 1.0}
    inside = subject[truth].mean(), subject[~truth].mean()
    assert inside[0] > 0.6 > 0.4 > inside[1], inside
    # every latent pixel is a square of 8 x 8
    assert np.array_equal(subject, subject[::8, ::8].repeat(8, 0).repeat(8, 1))


def test_a_batch_of_an_odd_size_gives_word_by_word_and_the_joined_masks_agree(client):
    each = np.stack(masks(client.run(probe(client, 88, 72, batch=2))))
    assert each.shape == (4, 72, 88)
    union, intersection, inverted = (
        np.stack(masks(client.run(probe(client, 88, 72, batch=2, **change))))
        for change in ({"combine": "union"}, {"combine": "intersection"}, {"combine": "union", "invert": True})
    )
    assert np.array_equal(union, np.maximum(each[:2], each[2:]))
    assert np.array_equal(intersection, np.minimum(each[:2], each[2:]))
    assert np.array_equal(inverted, 1 - union)


def filter_graph(client, mask: Image.Image, *filters: dict) -> dict:
    """A MASK from a picture through mask nodes in a row."""
    nodes = {
        "image": {"class_type": "LoadImage", "inputs": {"image": client.upload_image(mask, "mask-nodes-mask.png")}},
        "0": {"class_type": "ImageToMask", "inputs": {"image": ["image", 0], "channel": "red"}},
    }
    for i, node in enumerate(filters):
        nodes[str(i + 1)] = {"class_type": node["class"], "inputs": {"maps": [str(i), 0], **node["inputs"]}}
    return {**nodes, **shown([str(len(filters)), 0])}


def smooth(sigma: float, size: int) -> dict:
    return {"class": "ELSmoothSaliency", "inputs": {"sigma": sigma, "size": size}}


def dilate(operation: str, size: int, iterations: int) -> dict:
    return {"class": "ELDilateSaliency", "inputs": {"operation": operation, "size": size, "iterations": iterations}}


def drawn(width: int, height: int) -> Image.Image:
    blobs = ndimage.gaussian_filter(np.random.default_rng(5).random((height, width)), 4)
    return Image.fromarray((255 * (blobs > np.median(blobs))).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize(("width", "height"), [(61, 47), (128, 32)])
def test_a_mask_stays_a_mask(client, width, height):
    given = drawn(width, height)
    pixels = np.asarray(given.convert("L")) / 255
    (grown,) = masks(client.run(filter_graph(client, given, dilate("dilate", 3, 2))))
    (shrunk,) = masks(client.run(filter_graph(client, given, dilate("erode", 5, 1))))
    (soft,) = masks(client.run(filter_graph(client, given, smooth(2.0, 13))))
    assert np.array_equal(grown, ndimage.grey_dilation(pixels, (5, 5), mode="nearest"))
    assert np.array_equal(shrunk, ndimage.grey_erosion(pixels, (5, 5), mode="nearest"))
    expected = ndimage.gaussian_filter(pixels, 2.0, mode="nearest", radius=6)
    assert np.abs(soft - expected).max() < 1.01 / 255  # what a PNG cuts off


def test_the_result_feeds_core_nodes(client):
    """A mask made of the attention limits a stock sampler to the subject; the rest of the latent stays."""
    graph = probe(client, words=CASE.reference.subject)
    graph |= {
        "negative": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": ""}},
        "within": {"class_type": "SetLatentNoiseMask", "inputs": {"samples": ["one", 0], "mask": ["mask", 0]}},
        "sampled": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["model", 0], "seed": 3, "steps": 6, "cfg": 4.0, "sampler_name": "euler",
                "scheduler": "normal", "positive": ["prompt", 0], "negative": ["negative", 0],
                "latent_image": ["within", 0], "denoise": 1.0,
            },
        },
        "before": {"class_type": "VAEDecode", "inputs": {"samples": ["one", 0], "vae": ["model", 2]}},
        "after": {"class_type": "VAEDecode", "inputs": {"samples": ["sampled", 0], "vae": ["model", 2]}},
        "compare": {
            "class_type": "ELCompareImages",
            "inputs": {"image": ["after", 0], "reference": ["before", 0], "mask": ["outside", 0]},
        },
        "outside": {"class_type": "InvertMask", "inputs": {"mask": ["wide", 0]}},
        # the decoder sees a little beyond a latent pixel
        "wide": {
            "class_type": "ELDilateSaliency",
            "inputs": {"maps": ["mask", 0], "operation": "dilate", "size": 33, "iterations": 1},
        },
    }  # fmt: skip
    result = client.run(graph)
    kept = float(result.text("compare").split()[1])
    assert kept > 35, f"outside the mask the picture changed: {kept} dB"


@pytest.mark.parametrize(
    ("node", "inputs", "words"),
    [
        ("smooth", {"size": 4}, "smoothing size 4 must be an odd number"),
        ("dilate", {"size": 2}, "dilation size 2 must be an odd number"),
        ("dilate", {"operation": "open"}, "open"),
        ("dilate", {"maps": ["image", 0]}, "a picture becomes a MASK with Convert Image to Mask"),
        ("smooth", {"maps": ["latent", 0]}, "needs saliency or a MASK"),
        ("mask", {"rule": "quantile", "value": 3.0}, "quantile 3.0 must lie between 0"),
        ("mask", {"rule": "median"}, "median"),
        ("mask", {"words": "zebra"}, "no map of 'zebra'; there are maps of: "),
    ],
)
def test_mistakes_reach_the_user(client, node, inputs, words):
    graph = probe(client)
    graph[node]["inputs"] |= inputs
    with pytest.raises(ComfyError, match=words):
        client.run(graph)


def test_the_sockets_take_saliency_or_a_mask_and_return_the_same(client):
    info = client.object_info()
    for name in ("ELSmoothSaliency", "ELDilateSaliency"):
        template = info[name]["input"]["required"]["maps"][1]["template"]
        assert set(template["allowed_types"].split(",")) == {"EL_SALIENCY", "MASK"}
        assert info[name]["output_matchtypes"] == [template["template_id"]]
