"""Heat maps as pictures: laid over an image, labelled, with a legend, on one sheet."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from comfy.model_management import intermediate_device
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.choices import one_of
from ...core.maps.colours import colourise
from ...core.maps.masks import enlarge
from ...core.maps.saliency import Saliency, intensity, smooth_upsample
from ...core.maps.sheet import arrange, sheet_of
from .running_node import progress_bar, show_on_running_node

SCALES = ("each map", "shared")
# Limits in pixels of float32 colours, 12 bytes each: the overlays together take at most 3.2 GB, a sheet 100 MB.
OVERLAYS_PIXELS = 1 << 28
SHEET_PIXELS = 1 << 23
_TILE = 256
_GAP = 8
_PAPER, _INK = (24, 24, 28), (236, 236, 236)


class HeatMaps:
    """Pictures of a saliency's maps, drawn one at a time: none is kept, so that many maps take no more memory than one.

    image: IMAGE [N,H,W,3] under the maps, repeated over the batch; without it the colours alone, in the size of the
    model's pictures. colors: see `colourise`. opacity: 0 shows the image alone, 1 the colours alone. scale: `each map`
    colours from its own lowest to its own highest value, `shared` from the lowest to the highest of all. Raises
    ValueError when image and latent have different proportions, for another scale, and as `intensity` does.
    """

    def __init__(self, saliency: Saliency, image: Tensor | None, colors: str, opacity: float, scale: str) -> None:
        self._values = intensity(saliency).cpu()
        self._labels = saliency.labels
        self._image = image
        self._colors = colors
        self._opacity = opacity
        self._said: list[str] = []
        self._size = tuple(length * saliency.spatial_scale for length in saliency.grid)
        if image is not None:
            self._size = _matching_size(image, saliency.grid)
        one_of("scale", scale, SCALES)
        dims = (-2, -1) if scale == SCALES[0] else (0, 1, 2, 3)
        self._low, self._high = (
            bound(self._values, dim=dims, keepdim=True).expand(*self._values.shape[:2], 1, 1)
            for bound in (torch.amin, torch.amax)
        )

    def draw(self, i: int, latent: int, size: tuple[int, int] | None = None) -> Tensor:
        """Draw map `i` of one latent of the batch: [H,W,3] in 0..1; size: (height, width), None for the image's.

        Takes up to 40 bytes of memory per pixel.
        """
        size = size or self._size
        low, high = self._low[i, latent], self._high[i, latent]
        span = (high - low).clamp_min(torch.finfo(torch.float32).tiny)
        values = smooth_upsample(self._values[i : i + 1, latent : latent + 1], size)[0, 0]
        heat = colourise(values.sub_(low).div_(span), self._colors)
        if self._image is None:
            return heat
        under = self._image[latent % len(self._image), ..., :3].detach().cpu().float()
        if under.shape[:2] != size:
            under = F.interpolate(under.movedim(-1, 0)[None], size=size, mode="area")[0].movedim(0, -1)
        return torch.lerp(under, heat, self._opacity, out=heat)

    def overlays(self) -> Tensor:
        """Draw every picture, map by map: IMAGE [S·B,H,W,3].

        Where they would have more than OVERLAYS_PIXELS in all they are drawn smaller, which the running node says.
        Raises the host's exception when the user cancels.
        """
        maps, batch = self._values.shape[:2]
        size, shrink = self._size, math.sqrt(OVERLAYS_PIXELS / (maps * batch * math.prod(self._size)))
        if shrink < 1:
            size = tuple(max(1, math.floor(length * shrink)) for length in size)
            self._say(f"overlays: {size[1]}x{size[0]} pixels, as {maps * batch} larger ones take too much memory")
        pictures = torch.empty((maps * batch, *size, 3))
        progress = progress_bar()
        for i in range(maps * batch):
            pictures[i] = self.draw(i // batch, i % batch, size)
            progress(i + 1, maps * batch)
        return pictures

    def sheet(self) -> Tensor:
        """Draw the pictures on one sheet, each with its word above and its legend below: IMAGE [1,H,W,3].

        The maps of one step (or layer) stand in a row, see `core.maps.sheet`. Of too many steps an even selection is
        shown, which a line on the sheet and the running node say. Pictures smaller than 256 pixels are enlarged by a
        whole factor; all are reduced where the sheet would have more than SHEET_PIXELS.
        """
        plan = sheet_of(self._labels, self._values.shape[1])
        factor = max(1, math.ceil(_TILE / max(self._size)))
        height, width = (length * factor for length in self._size)
        rows = arrange(plan, (width + _GAP, height + 2 * _line(width) + _GAP))
        pixels = len(rows) * len(rows[0]) * width * (height + 2 * _line(width))
        shrink = math.sqrt(SHEET_PIXELS / pixels)
        if shrink < 1:
            factor, height, width = 1, max(1, math.floor(height * shrink)), max(1, math.floor(width * shrink))
        line = _line(width)
        across, down = width + _GAP, height + 2 * line + _GAP
        note = f"Shown: {plan.left_out}." if plan.left_out else ""
        page = torch.empty((_GAP + len(rows) * down + (line if note else 0), _GAP + len(rows[0]) * across, 3))
        page[:] = torch.tensor(_PAPER) / 255
        for y, row in enumerate(rows):
            for x, entry in enumerate(row):
                if entry is not None:
                    top, left = _GAP + y * down, _GAP + x * across
                    self._paste(page[top : top + height + 2 * line, left : left + width], *entry, factor)
        if note:
            page[-line:, _GAP:-_GAP] = _text(page.shape[1] - 2 * _GAP, line, note, _letters(width))
            self._say(f"sheet: {plan.left_out}")
        return page[None]

    def _say(self, text: str) -> None:
        """Show one more line on the running node."""
        self._said.append(text)
        show_on_running_node("\n".join(self._said))

    def _paste(self, tile: Tensor, i: int, latent: int, factor: int) -> None:
        """Fill a tile [line + H·factor + line,W·factor,3] with a picture, its name above and its legend below."""
        width = tile.shape[1]
        line = _line(width)
        height = tile.shape[0] - 2 * line
        batch = self._values.shape[1]
        name = f"{self._labels[i]} ({latent + 1})" if batch > 1 else self._labels[i]
        tile[:line] = _text(width, line, name, _letters(width))
        picture = self.draw(i, latent, (height // factor, width // factor)).clamp_(0, 1).mul_(255).round_().div_(255)
        tile[line:-line] = picture.repeat_interleave(factor, 0).repeat_interleave(factor, 1)
        span = float(self._low[i, latent]), float(self._high[i, latent])
        tile[-line:] = _legend(width, line, span, self._colors)


def raw_masks(saliency: Saliency) -> Tensor:
    """The maps on the latent grid, each divided by its own maximum: MASK [S·B,h,w]."""
    values = intensity(saliency).cpu().flatten(0, 1)
    return values / values.amax(dim=(-2, -1), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def picture_pixels(masks: Tensor, scale: int) -> Tensor:
    """Masks of the latent grid [N,h,w] as MASK [N,scale·h,scale·w], on the device that the host keeps outputs on."""
    return enlarge(masks, scale).to(intermediate_device())


def _matching_size(image: Tensor, grid: tuple[int, int]) -> tuple[int, int]:
    """The image's (height, width); raises ValueError unless a latent of this grid can belong to it."""
    height, width = image.shape[1:3]
    # One latent pixel of tolerance, because encoders round sizes to their own multiples.
    tolerance = 1 / min(grid)
    if abs(math.log(width * grid[0] / (height * grid[1]))) > tolerance:
        raise ValueError(
            f"an image of {width}x{height} pixels cannot belong to a latent of {grid[1]}x{grid[0]}: their proportions "
            "differ; connect the image that was made from the same latent, or none"
        )
    return height, width


def _letters(width: int) -> int:
    """Font size on tiles of this width."""
    return max(12, round(width / 18))


def _line(width: int) -> int:
    """Height of a line of text on tiles of this width."""
    return round(_letters(width) * 1.5)


def _text(width: int, height: int, text: str, letters: int) -> Tensor:
    """A line of text of this font size, cut where it is too long: [height,width,3]."""
    font = ImageFont.load_default(letters)
    strip = Image.new("RGB", (width, height), _PAPER)
    ImageDraw.Draw(strip).text((2, height / 2), _fit(text, font, width - 4), _INK, font, anchor="lm")
    return _colours(strip)


def _legend(width: int, height: int, span: tuple[float, float], colors: str) -> Tensor:
    """The colours from the lowest to the highest value with both numbers beside them: [height,width,3]."""
    font = ImageFont.load_default(_letters(width))
    strip = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(strip)
    low, high = (f"{value:.2g} x" for value in span)
    left = round(font.getlength(low)) + 8
    right = width - round(font.getlength(f"{high} mean")) - 8
    draw.text((2, height / 2), low, _INK, font, anchor="lm")
    draw.text((width - 2, height / 2), f"{high} mean", _INK, font, anchor="rm")
    if right > left:
        bar = colourise(torch.linspace(0, 1, right - left), colors).expand(max(1, height // 2), -1, -1)
        strip.paste(Image.fromarray((bar * 255).round().byte().numpy()), (left, round(height / 4)))
    return _colours(strip)


def _colours(strip: Image.Image) -> Tensor:
    return torch.from_numpy(np.asarray(strip).astype(np.float32) / 255)


def _fit(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut where it is wider than `width` pixels (the built-in font has no ellipsis and no ×)."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}...") > width:
        text = text[:-1]
    return f"{text}..."
