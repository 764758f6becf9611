"""Heat maps as pictures: laid over an image, labelled, with a legend, on one sheet."""

from __future__ import annotations

import math

import numpy as np
import torch
from comfy.model_management import intermediate_device
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ..core.colormap import colourise
from ..core.masks import enlarge
from ..core.saliency import Saliency, intensity, smooth_upsample

SCALES = ("each map", "shared")
_TILE = 256
_PAPER, _INK = (24, 24, 28), (236, 236, 236)


def overlays(
    saliency: Saliency, image: Tensor | None, colors: str, opacity: float, scale: str
) -> tuple[Tensor, list[tuple[float, float]]]:
    """One picture per map and latent, and the range its colours span.

    image: IMAGE [N,H,W,3] under the maps, repeated over the batch; without it the heat alone, a latent pixel as
    many picture pixels as the model's latents have.
    scale: `each map` colours from its own lowest to its own highest value, `shared` from the lowest to the highest of
    all. Returns IMAGE [S·B,H,W,3] and per picture (lowest, highest) in multiples of the map's mean.
    Raises ValueError when the image is not of the latent's shape.
    """
    values = intensity(saliency).cpu()
    size = (saliency.grid[0] * saliency.spatial_scale, saliency.grid[1] * saliency.spatial_scale)
    if image is not None:
        size = _matching_size(image, saliency.grid)
    dims = (-2, -1) if scale == "each map" else (0, 1, 2, 3)
    low, high = (
        bound(values, dim=dims, keepdim=True).expand(*values.shape[:2], 1, 1) for bound in (torch.amin, torch.amax)
    )
    span = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
    heat = colourise((smooth_upsample(values, size) - low) / span, colors).flatten(0, 1)
    ranges = list(zip(low.flatten().tolist(), high.flatten().tolist(), strict=True))
    if image is None:
        return heat, ranges
    batch = values.shape[1]
    under = image.cpu().float()[..., :3]
    under = under[torch.arange(heat.shape[0]) % batch % under.shape[0]]
    return torch.lerp(under, heat, opacity), ranges


def raw_masks(saliency: Saliency) -> Tensor:
    """The maps as they are, on the latent grid, each divided by its own maximum: MASK [S·B,h,w]."""
    values = intensity(saliency).cpu().flatten(0, 1)
    return values / values.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def picture_pixels(masks: Tensor, scale: int) -> Tensor:
    """Masks of the latent grid [N,h,w] as MASK [N,scale·h,scale·w] where the host keeps what crosses nodes."""
    return enlarge(masks, scale).to(intermediate_device())


def sheet(pictures: Tensor, saliency: Saliency, ranges: list[tuple[float, float]], colors: str) -> Tensor:
    """All pictures on one sheet, each with its word above and its legend below: IMAGE [1,H,W,3].

    The pictures [S·B,H,W,3] are ordered map by map. Maps of one step (or layer) stand in a row; a single word's follow
    each other.
    """
    count, height, width = pictures.shape[:3]
    batch = saliency.maps.shape[1]
    factor = max(1, math.ceil(_TILE / max(height, width)))
    names = [f"{label} ({b + 1})" if batch > 1 else label for label in saliency.labels for b in range(batch)]
    tiles = [_tile(*entry, colors, factor) for entry in zip(pictures, names, ranges, strict=True)]
    words = len({label.split(", ")[0] for label in saliency.labels})
    columns = min(count, words * batch * max(1, 4 // (words * batch)))
    rows = math.ceil(count / columns)
    gap = 8
    tile_width, tile_height = tiles[0].size
    page = Image.new("RGB", (gap + columns * (tile_width + gap), gap + rows * (tile_height + gap)), _PAPER)
    for i, tile in enumerate(tiles):
        page.paste(tile, (gap + i % columns * (tile_width + gap), gap + i // columns * (tile_height + gap)))
    return torch.from_numpy(np.asarray(page).astype(np.float32) / 255).unsqueeze(0)


def _matching_size(image: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """The image's (height, width), if a latent of this grid can belong to it."""
    height, width = image.shape[1:3]
    # One latent pixel of play, because encoders round sizes to their own multiples.
    play = 1 / min(grid)
    if abs(math.log(width * grid[0] / (height * grid[1]))) > play:
        raise ValueError(
            f"an image of {width}x{height} pixels cannot belong to a latent of {grid[1]}x{grid[0]}: their proportions "
            "differ; connect the image that was made from the same latent, or none"
        )
    return height, width


def _tile(picture: Tensor, name: str, span: tuple[float, float], colors: str, factor: int) -> Image.Image:
    """One picture (enlarged by a whole factor) with its name above and its legend below."""
    pixels = (picture.clamp(0, 1) * 255).round().byte().numpy()
    picture_image = Image.fromarray(pixels)
    width, height = picture_image.width * factor, picture_image.height * factor
    picture_image = picture_image.resize((width, height), Image.Resampling.NEAREST)
    font = ImageFont.load_default(max(12, round(width / 18)))
    line = round(font.size * 1.5)
    tile = Image.new("RGB", (width, height + 2 * line), _PAPER)
    draw = ImageDraw.Draw(tile)
    draw.text((2, line / 2), _fit(name, font, width - 4), _INK, font, anchor="lm")
    tile.paste(picture_image, (0, line))
    low, high = (f"{value:.2g} x" for value in span)
    left = round(font.getlength(low)) + 8
    right = width - round(font.getlength(f"{high} mean")) - 8
    middle = line + height + line / 2
    draw.text((2, middle), low, _INK, font, anchor="lm")
    draw.text((width - 2, middle), f"{high} mean", _INK, font, anchor="rm")
    if right > left:
        bar = colourise(torch.linspace(0, 1, right - left), colors).expand(max(1, line // 2), -1, -1)
        tile.paste(Image.fromarray((bar * 255).round().byte().numpy()), (left, round(middle - line / 4)))
    return tile


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut where it is wider than `width` pixels (the built-in font has no ellipsis and no ×)."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
