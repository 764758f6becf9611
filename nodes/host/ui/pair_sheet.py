"""Two pictures side by side with the points of one, and where they were found in the other."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.maps.colours import colourise

# Smaller pictures are enlarged by a whole factor, so that the numbers can be read.
_SIDE = 384
_GAP = 8
_PAPER = (24, 24, 28)


def pair_sheet(a: Tensor, b: Tensor, asked: Tensor, found: Tensor, kept: Tensor) -> Tensor:
    """Draw picture A [H,W,C] on the left and B on the right: [H',W',3] in 0..1 on the CPU.

    asked, found: points [P,2] in pixels of A and of B, numbered from 1 in both, joined by a line. kept: boolean [P]; of
    the others only the point in A is drawn, hollow.
    """
    factor = max(1, math.ceil(_SIDE / max(*a.shape[:2], *b.shape[:2])))
    left, right = (_enlarged(each, factor) for each in (a, b))
    sheet = Image.new("RGB", (left.width + _GAP + right.width, max(left.height, right.height)), _PAPER)
    sheet.paste(left, (0, 0))
    sheet.paste(right, (left.width + _GAP, 0))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(max(12, sheet.height // 28))
    radius = max(4, sheet.height // 90)
    colours = (colourise(torch.linspace(0.35, 1, len(asked)), "fire") * 255).int().tolist()
    shift = torch.tensor([left.width + _GAP, 0])
    rows = zip((asked * factor).tolist(), (found * factor + shift).tolist(), colours, kept.tolist(), strict=True)
    for number, (start, end, colour, keep) in enumerate(rows, 1):
        if keep:
            draw.line([*start, *end], tuple(colour), 1)
        for (x, y), shown in ((start, True), (end, keep)):
            if shown:
                inside = tuple(colour) if keep else None
                draw.ellipse([x - radius, y - radius, x + radius, y + radius], inside, "black", 2)
                draw.text((x + radius + 2, y), str(number), "white", font, "lm", stroke_width=2, stroke_fill="black")
    return torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255)


def _enlarged(picture: Tensor, factor: int) -> Image.Image:
    pixels = (picture[..., :3].detach().cpu().float().clamp(0, 1) * 255).round().byte().numpy()
    image = Image.fromarray(pixels)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
