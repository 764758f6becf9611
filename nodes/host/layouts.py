"""What Layout from Text gives: a mask for each box, and a picture with the boxes and their words."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from comfy.model_management import intermediate_device
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..core.layout import Box, Layout
from ..core.layout_text.reading import ReadLayout, read_layout
from ..core.maps.colours import distinct_colours
from .ui.running_node import show_on_running_node

_PAPER = 24, 24, 28
_TINT = 0.25  # how much of its colour fills a box
_LETTERS = 1 / 18  # of the picture's longer side


def layout_outputs(
    text: str, numbers: str, order: str, height: int, width: int
) -> tuple[Layout, Tensor, Tensor, dict[str, Any]]:
    """The layout of a text, its masks MASK [boxes,H,W], a picture of it IMAGE [1,H,W,3], and what the browser shows.

    A mask has in each pixel how much of it the box covers. The running node shows where each box is. Raises ValueError
    as `read_layout` does.
    """
    found = read_layout(text, numbers, order, (height, width))
    show_on_running_node(f"{found.table()}\nplain numbers: {found.unit}")
    masks = torch.stack([Layout.share(box, height, width) for box in found.layout.boxes]).to(intermediate_device())
    shown = {"el_layout": [{"text": text, "width": width, "height": height, **for_browser(found)}]}
    return found.layout, masks, _drawn(found.layout, height, width).to(intermediate_device()), shown


def for_browser(found: ReadLayout) -> dict[str, Any]:
    """The boxes for the editor on the node: sides in shares, colour, and the places in the text that a change is for.

    Places count characters, of which one beyond the first 65536 is one.
    """
    boxes = [
        {**asdict(entry), "colour": colour} for entry, colour in zip(found.entries, _colours(found.layout), strict=True)
    ]
    return {"unit": found.unit, "boxes": boxes}


def live_layout(text: str, numbers: str, order: str, width: int, height: int) -> dict[str, Any]:
    """The boxes of a text while it is typed, as of `for_browser`, or the `problem` with it and no boxes."""
    try:
        return for_browser(read_layout(text, numbers, order, (height, width)))
    except ValueError as error:
        return {"unit": "", "boxes": [], "problem": str(error)}


def _colours(layout: Layout) -> list[str]:
    """A colour for each box, as in HTML."""
    rows = (distinct_colours(len(layout.boxes)) * 255).round().int().tolist()
    return [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in rows]


def _drawn(layout: Layout, height: int, width: int) -> Tensor:
    """The boxes in colours with their words: IMAGE [1,H,W,3]. Smaller boxes lie upon larger ones."""
    page = Image.new("RGB", (width, height), _PAPER)
    font = ImageFont.load_default(max(10, round(max(height, width) * _LETTERS)))
    coloured = zip(layout.boxes, _colours(layout), strict=True)
    for box, colour in sorted(coloured, key=lambda each: -_area(each[0])):
        _draw_box(page, box, colour, font)
    return torch.from_numpy(np.asarray(page).astype(np.float32) / 255)[None]


def _draw_box(page: Image.Image, box: Box, colour: str, font: ImageFont.FreeTypeFont) -> None:
    left, right = (round(share * page.width) for share in (box.left, box.right))
    top, bottom = (round(share * page.height) for share in (box.top, box.bottom))
    right, bottom = max(right, left + 1), max(bottom, top + 1)  # a box of no pixel is still drawn
    inner = page.crop((left, top, right, bottom))
    page.paste(Image.blend(inner, Image.new("RGB", inner.size, colour), _TINT), (left, top))
    draw = ImageDraw.Draw(page)
    line = max(1, round(max(page.size) / 256))
    draw.rectangle((left, top, right - 1, bottom - 1), outline=colour, width=line)
    corner = left + 2 * line, top + 2 * line
    draw.rectangle(draw.textbbox(corner, box.words, font), fill=_PAPER)
    draw.text(corner, box.words, colour, font)


def _area(box: Box) -> float:
    return (box.right - box.left) * (box.bottom - box.top)
