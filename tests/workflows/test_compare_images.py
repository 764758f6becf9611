"""Compare Images on the real server: the numbers that a workflow gets, and what a user is told."""

import math

import numpy as np
import pytest
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.errors import ComfyError


def picture(seed: int, width: int = 61, height: int = 47) -> Image.Image:
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BILINEAR)


def graph(client: ComfyClient, image: Image.Image, reference: Image.Image, mask: Image.Image | None = None) -> dict:
    def load(name: str, what: Image.Image) -> dict:
        return {"class_type": "LoadImage", "inputs": {"image": client.upload_image(what, f"compare-{name}.png")}}

    nodes = {"image": load("image", image), "reference": load("reference", reference)}
    inputs: dict = {"image": ["image", 0], "reference": ["reference", 0]}
    if mask is not None:
        nodes["mask picture"] = load("mask", mask)
        nodes["mask"] = {"class_type": "ImageToMask", "inputs": {"image": ["mask picture", 0], "channel": "red"}}
        inputs["mask"] = ["mask", 0]
    nodes["compare"] = {"class_type": "ELCompareImages", "inputs": inputs}
    for i, name in enumerate(("psnr", "ssim", "text")):
        nodes[name] = {"class_type": "PreviewAny", "inputs": {"source": ["compare", i]}}
    return nodes


def test_the_numbers_are_outputs_and_stand_on_the_node(client: ComfyClient):
    image, reference = picture(1), picture(2)
    result = client.run(graph(client, image, reference))
    a, b = (np.asarray(x) / 255 for x in (image, reference))
    wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    psnr = peak_signal_noise_ratio(b, a, data_range=1.0)
    ssim = structural_similarity(b, a, data_range=1.0, channel_axis=-1, **wang)
    assert float(result.text("psnr")) == pytest.approx(psnr, abs=1e-3)
    assert float(result.text("ssim")) == pytest.approx(ssim, abs=1e-4)
    assert result.text("compare") == result.text("text") == f"PSNR {psnr:.2f} dB, SSIM {ssim:.4f}"


def test_identical_inside_the_mask(client: ComfyClient):
    reference = picture(1)
    image, mask = reference.copy(), Image.new("L", reference.size, 0)
    image.paste("red", (35, 0, 61, 47))
    mask.paste(255, (0, 0, 29, 47))
    result = client.run(graph(client, image, reference, mask.convert("RGB")))
    assert result.text("compare") == "PSNR ∞ (identical), SSIM 1.0000"
    assert math.isinf(float(result.text("psnr")))


def test_two_steps_of_a_batch(client: ComfyClient):
    nodes = graph(client, picture(1), picture(2))
    nodes["again"] = {"class_type": "RepeatImageBatch", "inputs": {"image": ["image", 0], "amount": 2}}
    nodes["compare"]["inputs"]["image"] = ["again", 0]
    lines = client.run(nodes).text("compare").splitlines()
    assert [line.partition(":")[0] for line in lines] == ["picture 1", "picture 2", "mean"]


def test_different_sizes_are_named(client: ComfyClient):
    with pytest.raises(ComfyError, match="image 61×47, reference 64×48"):
        client.run(graph(client, picture(1), picture(2, 64, 48)))
