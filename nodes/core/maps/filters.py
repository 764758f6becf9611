"""Filters of maps and masks: Gaussian smoothing, grey dilation and erosion."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .saliency import Saliency


def gaussian_smooth(maps: Tensor, sigma: float, size: int, padding: str = "replicate") -> Tensor:
    """Gaussian filter of the last two axes with a `size` × `size` window.

    G[k] ∝ exp(-k²/2σ²) for |k| ≤ (size-1)/2, normalised to sum 1; the published code of Abs-Grad-SAM uses σ = 6,
    size = 3.
    maps: float [...,h,w]. sigma: standard deviation in latent pixels, 0 returns the maps unchanged. size: odd, in
    latent pixels. padding: what lies beyond the edge: its own values (replicate), or what lies as far inside of it
    (reflect; for maps too small for that, replicate). Raises ValueError for a negative σ or an even or non-positive
    size.
    """
    if sigma < 0:
        raise ValueError(
            f"smoothing sigma {sigma} is negative; use 0 for no smoothing or a positive number of latent pixels"
        )
    radius = _radius(size, "smoothing size")
    if sigma == 0 or radius == 0:
        return maps
    offsets = torch.arange(-radius, radius + 1, device=maps.device, dtype=maps.dtype)
    kernel = torch.exp(-(offsets**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    flat = maps.reshape(-1, 1, *maps.shape[-2:])
    padding = padding if min(maps.shape[-2:]) > radius else "replicate"
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode=padding), kernel.view(1, 1, -1, 1))
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode=padding), kernel.view(1, 1, 1, -1))
    return flat.view_as(maps)


def dilate(maps: Tensor, size: int, iterations: int) -> Tensor:
    """Grey dilation of the last two axes: the maximum over a `size` × `size` square, repeated; binary on a binary map.

    maps: float [...,h,w]. size: odd, in latent pixels. iterations: how many times, 0 returns the maps unchanged (the
    Abs-Grad-SAM code: 3×3, 3 times). Raises ValueError for an even or non-positive size or negative iterations.
    """
    if iterations < 0:
        raise ValueError(f"dilation iterations {iterations} is negative; use 0 for none")
    reach = _radius(size, "dilation size") * iterations
    if reach == 0:
        return maps
    # A square is separable, and n dilations by it are one dilation with n times its reach.
    return _window_maximum(_window_maximum(maps, reach, -2), reach, -1)


def erode(maps: Tensor, size: int, iterations: int) -> Tensor:
    """Grey erosion: the minimum over a `size` × `size` square, repeated; the opposite of `dilate`, with its arguments.

    What lies beyond the edge does not count, so a mask that touches the edge does not shrink there.
    """
    return -dilate(-maps, size, iterations)


def _window_maximum(maps: Tensor, reach: int, dim: int) -> Tensor:
    """The maximum over the places at most `reach` away along axis `dim` (-2 or -1)."""
    reach = min(reach, maps.shape[dim] - 1)
    found = F.pad(maps, (reach, reach) if dim == -1 else (0, 0, reach, reach), value=-torch.inf)
    # The maximum of two windows side by side (or overlapping) is that of one twice as wide: log2(width) passes.
    covered, width = 1, 2 * reach + 1
    while covered < width:
        step = min(covered, width - covered)
        length = found.shape[dim] - step
        found = torch.maximum(found.narrow(dim, 0, length), found.narrow(dim, step, length))
        covered += step
    return found


def _radius(size: int, name: str) -> int:
    if size < 1 or size % 2 == 0:
        raise ValueError(f"{name} {size} must be an odd number of latent pixels: 1, 3, 5, ...")
    return (size - 1) // 2


OPERATIONS = {"dilate": dilate, "erode": erode}


def apply_filter(maps: Saliency | Tensor, change: Callable[[Tensor], Tensor]) -> Saliency | Tensor:
    """Saliency or a MASK with a filter applied to every map; the result has the same type and device.

    maps: Saliency, or float or whole numbers [B,H,W] or [H,W]. A MASK of any float type keeps it (whole numbers become
    float32); it is computed in float32. Raises ValueError for anything else.
    """
    if isinstance(maps, Saliency):
        return maps.mapped(change)
    if not isinstance(maps, Tensor) or maps.ndim not in (2, 3):
        shape = f" of shape {list(maps.shape)}" if isinstance(maps, Tensor) else ""
        raise ValueError(
            f"this needs saliency or a MASK [batch, height, width], and got {type(maps).__name__}{shape}; a picture "
            "becomes a MASK with Convert Image to Mask"
        )
    return change(maps.float()).to(maps.dtype if maps.is_floating_point() else torch.float32)
