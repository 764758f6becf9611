"""Saliency maps in one small file, for the viewer in the browser (js/maps.js reads it)."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from .colours import colormap
from .saliency import Saliency, intensity, tabulate

MOST_VALUES = 1 << 24
LEVELS = 255


def pack(saliency: Saliency, colors: str, shared: bool, pictures: Sequence[bytes] = ()) -> bytes:
    """The maps, quantised to 256 levels, with all that is needed to show them.

    colors: one of `COLORMAPS`. shared: one colour scale for all maps. pictures: encoded pictures to show under the
    maps, one per latent of the batch, or fewer, which repeat.
    Returns 4 bytes with the length of the header, little endian; the header, JSON in UTF-8; the maps [P·S,B,h,w] of P
    powers of refining, the least refined first, one byte per value; the pictures, one after another. A value is byte /
    255 · peak in multiples of its map's mean, with an error of peak / 510 at most. Maps of more than 16 million values
    in all are made smaller by a whole factor.
    Raises ValueError as `intensity` and `colormap` do.
    """
    values = _reduced(torch.cat([intensity(saliency.at_power(power)).cpu() for power in saliency.powers]))
    peaks = values.amax(dim=(-2, -1))
    scale = peaks.clamp_min(torch.finfo(torch.float32).tiny)[..., None, None]
    levels = (values / scale * LEVELS).round().to(torch.uint8)
    colours = (colormap(colors) * LEVELS).round().to(torch.uint8)
    table = tabulate(saliency.labels)
    header = {
        "words": table.words,
        "frames": table.frames,
        "maps": table.maps,
        "powers": list(saliency.powers),
        "shape": list(levels.shape),
        "peaks": peaks.tolist(),
        "colours": bytes(colours.flatten().tolist()).hex(),
        "shared": shared,
        "spatial_scale": saliency.spatial_scale,
        "pictures": [len(picture) for picture in pictures],
    }
    text = json.dumps(header, ensure_ascii=False).encode()
    return b"".join([struct.pack("<I", len(text)), text, levels.numpy().tobytes(), *pictures])


def _reduced(values: Tensor) -> Tensor:
    """The maps averaged over the smallest squares with which they are at most MOST_VALUES values."""
    factor = 1
    while values.numel() // factor**2 > MOST_VALUES and factor < min(values.shape[-2:]):
        factor += 1
    return F.avg_pool2d(values, factor) if factor > 1 else values
