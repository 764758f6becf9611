"""The file that the browser's attention inspector shows, written to ComfyUI's temporary folder."""

from __future__ import annotations

import io
import math
import os
import tempfile
from pathlib import Path

import folder_paths
import numpy as np
from PIL import Image
from torch import Tensor

from ...core.maps.packing import pack
from ...core.maps.saliency import Saliency

LONGEST_SIDE = 1024  # pixels of a picture under the maps
LARGE_PICTURES = 16  # so many may be that large; those of a larger batch are smaller, with as many pixels in all


def inspector(saliency: Saliency, image: Tensor | None, colors: str, scale: str) -> dict[str, list[dict[str, str]]]:
    """Write the maps for the inspector and return the part of a node's `ui` that names the file.

    image: IMAGE [N,H,W,3] under the maps, repeated over the batch, or None; large pictures are reduced. colors, scale:
    as of `HeatMaps`. Nothing but the inspector reads the file; ComfyUI empties the folder when it starts.
    """
    under = [] if image is None else image[: saliency.maps.shape[1]]
    side = math.floor(LONGEST_SIDE * min(1, math.sqrt(LARGE_PICTURES / max(1, len(under)))))
    pictures = [_png(each, side) for each in under]
    folder = folder_paths.get_temp_directory()
    os.makedirs(folder, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix="explainable_latents_", suffix=".maps", dir=folder)
    with os.fdopen(handle, "wb") as file:
        file.write(pack(saliency, colors, scale == "shared", pictures))
    return {"el_inspector": [{"file": Path(name).name, "type": "temp"}]}


def _png(picture: Tensor, side: int) -> bytes:
    """An encoded picture of at most `side` × `side` pixels."""
    pixels = (picture[..., :3].cpu().float().clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((side, side))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", compress_level=1)
    return buffer.getvalue()
