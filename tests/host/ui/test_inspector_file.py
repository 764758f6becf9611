"""What Saliency Overlay leaves for the browser's inspector, in ComfyUI's own temporary folder."""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from explainable_latents.nodes.core.maps.saliency import Saliency


def made(comfy, **inputs: object) -> tuple[dict, bytes]:
    """Run the node; the header of its file, and the pictures in it."""
    import folder_paths

    from explainable_latents.nodes.images import ELSaliencyOverlay

    settings = {"colormap": "fire", "opacity": 0.5, "scale": "shared", **inputs}
    (named,) = ELSaliencyOverlay.execute(**settings).ui["el_inspector"]
    data = (Path(folder_paths.get_temp_directory()) / named["file"]).read_bytes()
    (length,) = struct.unpack_from("<I", data)
    header = json.loads(data[4 : 4 + length])
    return header, data[len(data) - sum(header["pictures"]) :]


def maps(batch: int, size: tuple[int, int] = (5, 7)) -> Saliency:
    values = torch.rand(2, batch, *size, generator=torch.Generator().manual_seed(5))
    return Saliency(values, ("dog", "beach"), 1.0, None, size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_maps_and_pictures_of_a_batch(comfy, dtype):
    image = torch.full((2, 41, 57, 3), 0.25, dtype=dtype)
    image[1] = 1.0
    header, pictures = made(comfy, saliency=maps(2), image=image)
    assert header["shape"] == [2, 2, 5, 7]
    assert header["words"] == ["dog", "beach"]
    assert header["shared"] is True
    one, two = header["pictures"]
    first, second = Image.open(io.BytesIO(pictures[:one])), Image.open(io.BytesIO(pictures[one : one + two]))
    assert (first.size, first.getpixel((0, 0)), second.getpixel((56, 40))) == ((57, 41), (64, 64, 64), (255, 255, 255))


def test_every_map_of_a_large_batch_keeps_its_own_picture(comfy):
    shades = torch.linspace(0, 1, 40)
    header, pictures = made(comfy, saliency=maps(40, (4, 4)), image=shades.view(-1, 1, 1, 1).expand(-1, 700, 700, 3))
    ends = np.cumsum(header["pictures"])
    shown = [
        Image.open(io.BytesIO(pictures[end - size : end])) for size, end in zip(header["pictures"], ends, strict=True)
    ]
    assert [each.getpixel((0, 0))[0] for each in shown] == [round(255 * float(shade)) for shade in shades]
    assert sum(each.width * each.height for each in shown) <= 16 * 1024**2


def test_no_picture(comfy):
    header, pictures = made(comfy, saliency=maps(1))
    assert header["pictures"] == []
    assert pictures == b""


def test_large_pictures_are_reduced_and_keep_their_shape(comfy):
    _, pictures = made(comfy, saliency=maps(1, (10, 20)), image=torch.zeros(1, 1000, 2000, 4))
    assert Image.open(io.BytesIO(pictures)).size == (1024, 512)
