"""Pictures and other files for the browser, in ComfyUI's temporary folder, which it empties when it starts."""

from __future__ import annotations

import base64
import io
import math
import os
import tempfile
from pathlib import Path

import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor

LONGEST_SIDE = 1024  # pixels of a picture
SMALL_SIDE = 64
LARGE_PICTURES = 16  # so many may be that large; those of a larger batch are smaller, with as many pixels in all


def write_temporary(data: bytes, suffix: str) -> dict[str, str]:
    """Write a file; return its name and ComfyUI's name of its folder, with which the browser asks for it."""
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="explainable_latents_", suffix=suffix, dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
    return {"file": Path(name).name, "type": "temp"}


def as_pngs(images: Tensor) -> list[bytes]:
    """Each picture of an IMAGE [N,H,W,C], encoded; large ones are reduced."""
    side = math.floor(LONGEST_SIDE * min(1, math.sqrt(LARGE_PICTURES / max(1, len(images)))))
    return [_png(picture, side) for picture in images]


def data_url(png: bytes) -> str:
    """An encoded picture as an address that holds all of it."""
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def smaller(url: str) -> str:
    """A picture that `data_url` gave, reduced to be shown among others."""
    with Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))) as image:
        image.thumbnail((SMALL_SIDE, SMALL_SIDE))
        buffer = io.BytesIO()
        image.save(buffer, format="PNG", compress_level=1)
    return data_url(buffer.getvalue())


def _png(picture: Tensor, side: int) -> bytes:
    """An encoded picture of at most `side` × `side` pixels."""
    pixels = (picture[..., :3].cpu().float().clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
