"""From saliency maps to masks: smoothing, dilation, thresholds, combination (Experiments 1 and 2, Abs-Grad-SAM)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COMBINATIONS = ("sum", "union", "intersection")
FLAT_MAPS = ("error", "all in", "all out")  # what becomes of a map that no threshold can divide
# Whether maps are smoothed and dilated, or the mask that the threshold makes of them (as document 001 has it).
BEFORE, AFTER = FILTERED = ("before the threshold", "after the threshold")

# Below this spread relative to its size a float32 map carries no information to threshold.
_FLAT = 1e-6


def gaussian_smooth(maps: Tensor, sigma: float, size: int) -> Tensor:
    """Gaussian filter of the last two axes with a `size` × `size` window, edge values repeated outwards.

    G[k] ∝ exp(-k²/2σ²) for |k| ≤ (size-1)/2, normalised to sum 1; the published code uses σ = 6, size = 3.
    maps: float [...,h,w]. sigma: standard deviation in latent pixels, 0 returns the maps unchanged. size: odd, in
    latent pixels. Raises ValueError for a negative σ or an even or non-positive size.
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
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))
    return flat.view_as(maps)


def dilate(maps: Tensor, size: int, iterations: int) -> Tensor:
    """Grey dilation of the last two axes: the maximum over a `size` × `size` square, repeated; binary on a binary map.

    maps: float [...,h,w]. size: odd, in latent pixels. iterations: how often, 0 returns the maps unchanged (published:
    3×3, 3 times). Raises ValueError for an even or non-positive size or negative iterations.
    """
    if iterations < 0:
        raise ValueError(f"dilation iterations {iterations} is negative; use 0 for none")
    reach = _radius(size, "dilation size") * iterations
    if reach == 0:
        return maps
    # A square is separable, and n dilations by it are one dilation by the n times wider square.
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
    # Joining two windows that lie side by side (or overlap) doubles them: log2(width) passes, whatever the width.
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


def mean_threshold(maps: Tensor, value: float) -> Tensor:
    """μ(A) of each map (Experiment 1); `value` is not used."""
    return maps.mean(dim=(-2, -1), keepdim=True)


def log_mean_threshold(maps: Tensor, value: float) -> Tensor:
    """exp(μ(log A) + λ) of each map with λ = `value` (Experiment 2: 0.2).

    Zeros are left out of the mean of the logarithm.
    """
    positive = maps > 0
    logs = torch.where(positive, maps, 1).log()
    return (logs.sum((-2, -1), keepdim=True) / positive.sum((-2, -1), keepdim=True) + value).exp()


def mean_std_threshold(maps: Tensor, value: float) -> Tensor:
    """μ(A) + k·σ(A) of each map (of each channel, where there are channels) with k = `value` (Abs-Grad-SAM: 0.5)."""
    return maps.mean((-2, -1), keepdim=True) + value * maps.std((-2, -1), keepdim=True, correction=0)


def quantile_threshold(maps: Tensor, value: float) -> Tensor:
    """The `value` quantile of each map, in [0, 1]. Raises ValueError outside."""
    if not 0 <= value <= 1:
        raise ValueError(f"quantile {value} must lie between 0 (everything) and 1 (nothing)")
    return maps.flatten(-2).quantile(value, dim=-1, keepdim=True).unsqueeze(-1)


def otsu_threshold(maps: Tensor, value: float) -> Tensor:
    """The level that best separates each map's values into two classes (Otsu 1979), found among the values themselves.

    Maximises w₀ w₁ (μ₀ - μ₁)² over every split of the sorted values; `value` is not used. It is computed on the CPU in
    float64, which not every device has.
    """
    ordered = maps.flatten(-2).cpu().double().sort(dim=-1).values
    n = ordered.shape[-1]
    low = torch.arange(1, n, dtype=torch.float64)
    sums = ordered.cumsum(-1)
    difference = sums[..., :-1] / low - (sums[..., -1:] - sums[..., :-1]) / (n - low)
    best = (low * (n - low) * difference**2).argmax(dim=-1, keepdim=True)
    return ordered.gather(-1, best).to(maps.dtype).to(maps.device).unsqueeze(-1)


Threshold = Callable[[Tensor, float], Tensor]
RULES: dict[str, Threshold] = {
    "mean": mean_threshold,
    "log-mean": log_mean_threshold,
    "mean + k·std": mean_std_threshold,
    "quantile": quantile_threshold,
    "otsu": otsu_threshold,
}


@dataclass(frozen=True)
class Shaping:
    """How maps become a mask.

    rule: one of `RULES`. value: λ of log-mean, k of mean + k·std, the quantile; other rules ignore it. combine: `sum`
    adds the subjects' maps before one threshold (Experiment 1), `union` and `intersection` join their masks. invert:
    exchange inside and outside.
    sigma, size: Gaussian smoothing. dilation, iterations: grey dilation of what was smoothed. filtered: one of
    `FILTERED`; after the threshold the mask is smoothed, so that it has a soft edge, before it is exchanged.
    whole: maps of latent channels have one threshold for all channels, not one for each. flat: one of `FLAT_MAPS`; a
    map that cannot be divided is an error, or lies above or below its threshold as a whole.
    """

    rule: str = "mean"
    value: float = 0.0
    combine: str = "sum"
    invert: bool = False
    sigma: float = 0.0
    size: int = 3
    dilation: int = 3
    iterations: int = 0
    whole: bool = False
    filtered: str = BEFORE
    flat: str = "error"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"threshold rule {self.rule!r} is not one of: {', '.join(RULES)}")
        if self.combine not in COMBINATIONS:
            raise ValueError(f"combination {self.combine!r} is not one of: {', '.join(COMBINATIONS)}")
        if self.filtered not in FILTERED:
            raise ValueError(f"smooth_and_dilate {self.filtered!r} is not one of: {', '.join(FILTERED)}")
        if self.flat not in FLAT_MAPS:
            raise ValueError(f"flat map {self.flat!r} is not one of: {', '.join(FLAT_MAPS)}")


def threshold(
    maps: Tensor, rule: str, value: float, labels: tuple[str, ...], whole: bool = False, flat: str = "error"
) -> Tensor:
    """Boolean masks A > threshold(A), of the shape of `maps` [S,B,...,h,w]; `labels` name the S maps in errors.

    whole: [S,B,C,h,w] has one threshold for the C channels of a map. The same mask results from any positive multiple
    of a map. flat: a constant map, of one latent and channel, is True for `all in` and False for `all out`. Raises
    ValueError naming the subject for such a map otherwise, and for one that is not finite.
    """
    if rule not in RULES:
        raise ValueError(f"threshold rule {rule!r} is not one of: {', '.join(RULES)}")
    together = maps.flatten(2, 3).unsqueeze(2) if whole and maps.ndim == 5 else maps
    spread = together.amax((-2, -1), keepdim=True) - together.amin((-2, -1), keepdim=True)
    constant = spread <= _FLAT * together.abs().amax((-2, -1), keepdim=True)
    _refuse(~together.isfinite(), labels, "is not finite (NaN or infinity)", "")
    if flat == "error":
        _refuse(constant, labels, "has the same value everywhere", ", or let flat_map take all or nothing of it")
    return torch.where(constant, flat == "all in", maps > RULES[rule](together, value))


def _refuse(bad: Tensor, labels: tuple[str, ...], problem: str, remedy: str) -> None:
    if named := [f"'{label}'" for label, some in zip(labels, bad.flatten(1).any(1), strict=True) if some]:
        raise ValueError(
            f"the saliency map of {', '.join(named)} {problem}, so no threshold can divide it. Choose another word, "
            f"layer, step or noise level{remedy}."
        )


def shape_mask(maps: Tensor, shaping: Shaping, labels: tuple[str, ...], layers: int = 1) -> Tensor:
    """One mask per latent from the maps of several subjects.

    maps: [S,B,h,w] or [S,B,C,h,w]; of several `layers` one layer's behind the other's, whose masks intersect. Returns
    float32, [B,h,w] or [B,C,h,w]: 0 and 1, or between where the mask was smoothed. Raises ValueError as `threshold`.
    """
    maps = _before(maps, shaping)
    per_layer = len(labels) // layers
    masks = [
        _combined(part, shaping, labels[start : start + per_layer])
        for start, part in zip(range(0, len(labels), per_layer), maps.split(per_layer), strict=True)
    ]
    return _behind(torch.stack(masks).all(0), shaping)


def each_mask(maps: Tensor, shaping: Shaping, labels: tuple[str, ...]) -> Tensor:
    """A mask for every subject, not combined: float32 of the shape of `maps`. Raises as `threshold` does."""
    maps = _before(maps, shaping)
    return _behind(threshold(maps, shaping.rule, shaping.value, labels, shaping.whole, shaping.flat), shaping)


def _combined(maps: Tensor, shaping: Shaping, labels: tuple[str, ...]) -> Tensor:
    """The boolean mask of one layer's maps."""
    if shaping.combine == "sum":
        maps, labels = maps.sum(0, keepdim=True), (" + ".join(labels),)
    masks = threshold(maps, shaping.rule, shaping.value, labels, shaping.whole, shaping.flat)
    return masks.all(0) if shaping.combine == "intersection" else masks.any(0)


def _before(maps: Tensor, shaping: Shaping) -> Tensor:
    return _filtered(maps, shaping) if shaping.filtered == BEFORE else maps


def _behind(mask: Tensor, shaping: Shaping) -> Tensor:
    """What becomes of a boolean mask: float32."""
    mask = mask.float()
    if shaping.filtered == AFTER:
        mask = _filtered(mask, shaping).clamp(0, 1)  # weights add up to 1 within rounding
    return 1 - mask if shaping.invert else mask


def _filtered(maps: Tensor, shaping: Shaping) -> Tensor:
    return dilate(gaussian_smooth(maps, shaping.sigma, shaping.size), shaping.dilation, shaping.iterations)


def enlarge(masks: Tensor, scale: int) -> Tensor:
    """Masks [...,h,w] in picture pixels: every latent pixel a square of `scale` × `scale`."""
    return masks.repeat_interleave(scale, -2).repeat_interleave(scale, -1)
