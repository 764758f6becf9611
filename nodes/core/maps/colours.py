"""Colour maps for heat maps: curves of equal steps and rising lightness in the Oklab colour space; colours of regions.

Equal steps of a value look equally large. Because lightness rises all the way, the order of the colours can be seen
with any kind of colour blindness and in black and white print.
Source: B. Ottosson, "A perceptual color space for image processing" (Oklab), 2020; the curves are our own.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from ..choices import one_of

SIZE = 256  # colours in a colour map
_SAMPLES = 4096  # points computed on a curve, from which these are chosen
_AT_ONCE = 1 << 17  # values coloured at once: 7 MB of memory beside the result

# How Oklab is defined: linear sRGB -> cone responses -> (cube root) -> Oklab; here it is gone backwards.
_CONES = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
_LAB = (
    (0.2104542553, 0.7936177850, -0.0040720468),
    (1.9779984951, -2.4285922050, 0.4505937099),
    (0.0259040371, 0.7827717662, -0.8086757660),
)

# Bézier control points: Oklab lightness, chroma, hue in degrees.
_CURVES = {
    "fire": ((0.14, 0.05, 285), (0.32, 0.17, 300), (0.58, 0.26, 5), (0.74, 0.19, 58), (0.955, 0.10, 105)),
    "sea": ((0.22, 0.07, 300), (0.38, 0.16, 290), (0.55, 0.10, 210), (0.75, 0.20, 150), (0.93, 0.19, 110)),
    "grey": ((0.12, 0.0, 0), (0.98, 0.0, 0)),
}
COLORMAPS = tuple(_CURVES)

# Colours that follow one another differ in hue by the golden angle, and take turns in lightness, which anybody can see.
_GOLDEN_ANGLE = math.pi * (3 - math.sqrt(5))
_REGION_LIGHTNESS = (0.72, 0.5, 0.86)
_REGION_CHROMA, _REGION_HUE = 0.13, math.radians(250)


def oklab_to_srgb(lab: Tensor) -> Tensor:
    """sRGB colours of Oklab coordinates (L, a, b), clipped to 0..1: [...,3] -> [...,3], float64."""
    cones = (lab.double() @ torch.linalg.inv(_matrix(_LAB)).T) ** 3
    linear = (cones @ torch.linalg.inv(_matrix(_CONES)).T).clamp(0, 1)
    return torch.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@lru_cache(maxsize=len(_CURVES))
def colormap(name: str) -> Tensor:
    """The colours of a colour map from low to high: float32 sRGB [256,3] in 0..1.

    name: one of `COLORMAPS`, a Bézier curve in Oklab, sampled at equal arc length. Raises ValueError for another name.
    """
    one_of("colour map", name, COLORMAPS)
    points = torch.tensor(
        [(L, c * math.cos(math.radians(h)), c * math.sin(math.radians(h))) for L, c, h in _CURVES[name]],
        dtype=torch.float64,
    )
    degree = len(points) - 1
    t = torch.linspace(0, 1, _SAMPLES, dtype=torch.float64)
    basis = torch.stack([math.comb(degree, i) * t**i * (1 - t) ** (degree - i) for i in range(degree + 1)], dim=1)
    curve = basis @ points
    length = torch.cat([t.new_zeros(1), curve.diff(dim=0).norm(dim=1).cumsum(0)])
    wanted = torch.linspace(0, 1, SIZE, dtype=torch.float64) * length[-1]
    return oklab_to_srgb(curve[torch.searchsorted(length, wanted).clamp_max(_SAMPLES - 1)]).float()


def colourise(values: Tensor, name: str) -> Tensor:
    """Colours of values, clipped to 0..1 and interpolated in the colour map: [...] -> float32 sRGB [...,3].

    name: one of `COLORMAPS`. Raises ValueError as `colormap` does.
    """
    table = colormap(name).to(values.device)
    colours = torch.empty((*values.shape, 3), device=values.device)
    for given, out in zip(values.reshape(-1).split(_AT_ONCE), colours.view(-1, 3).split(_AT_ONCE), strict=True):
        position = given.float().clamp(0, 1) * (SIZE - 1)
        low = position.floor().long().clamp_max(SIZE - 2)
        out.copy_(torch.lerp(table[low], table[low + 1], (position - low).unsqueeze(-1)))
    return colours


def distinct_colours(count: int) -> Tensor:
    """Colours for the parts of a picture, the first ones most distinct: float32 sRGB [count,3] in 0..1.

    A colour does not depend on how many follow it.
    """
    i = torch.arange(count, dtype=torch.float64)
    hue = _REGION_HUE + i * _GOLDEN_ANGLE
    lightness = torch.tensor(_REGION_LIGHTNESS, dtype=torch.float64)[torch.arange(count) % len(_REGION_LIGHTNESS)]
    return oklab_to_srgb(torch.stack([lightness, _REGION_CHROMA * hue.cos(), _REGION_CHROMA * hue.sin()], -1)).float()


def _matrix(rows: tuple[tuple[float, ...], ...]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)
