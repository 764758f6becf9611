"""Measures of how alike two pictures are, PSNR and SSIM, over the whole picture or a region of it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 11  # pixels
WINDOW_SIGMA = 1.5  # pixels
C1, C2 = 0.01**2, 0.03**2  # for values in [0, 1]


@dataclass(frozen=True)
class Comparison:
    """One value per compared picture: `psnr` in dB (infinite for identical pictures), `ssim` at most 1."""

    psnr: tuple[float, ...]
    ssim: tuple[float, ...]

    @property
    def mean_psnr(self) -> float:
        """Mean over the pictures, in dB; infinite as soon as one of them is identical to its reference."""
        return sum(self.psnr) / len(self.psnr)

    @property
    def mean_ssim(self) -> float:
        """Mean over the pictures."""
        return sum(self.ssim) / len(self.ssim)

    def lines(self) -> list[str]:
        """The values of each picture as text."""
        return [_line(p, s) for p, s in zip(self.psnr, self.ssim, strict=True)]

    def text(self) -> str:
        """The values as text: one line, or for a batch one line per picture and one for the mean."""
        lines = self.lines()
        if len(lines) == 1:
            return lines[0]
        numbered = [f"picture {i}: {line}" for i, line in enumerate(lines, 1)]
        return "\n".join([*numbered, f"mean: {_line(self.mean_psnr, self.mean_ssim)}"])


def compare(image: Tensor, reference: Tensor, mask: Tensor | None = None, *, name: str = "image") -> Comparison:
    """PSNR and SSIM of `image` [B,H,W,C] against `reference` [B,H,W,C], values in [0,1], any floating dtype.

    mask: [B,H,W]; only places where it is above 0.5 count. A batch of one is compared with each picture of the other;
    an alpha channel is ignored. name: what errors call `image`. Raises ValueError when sizes, channels or batches do
    not match, a value is not finite or the mask is empty.
    """
    image, reference = (_pixels(called, x) for called, x in ((name, image), ("reference", reference)))
    if image.shape[1] != reference.shape[1]:
        raise ValueError(f"{name} has {image.shape[1]} channels, reference {reference.shape[1]}: give both the same")
    shapes = {name: image.shape, "reference": reference.shape}
    region = None
    if mask is not None:
        if mask.ndim != 3:
            raise ValueError(f"a mask has the shape [batch, height, width], got {tuple(mask.shape)}")
        region = mask.to(image.device) > 0.5
        shapes["mask"] = region.shape
    _check_sizes(shapes)
    batch = _common_batch({called: shape[0] for called, shape in shapes.items()})
    image, reference = (x.expand(batch, -1, -1, -1) for x in (image, reference.to(image.device)))
    if region is not None:
        region = region.expand(batch, -1, -1)
    return Comparison(tuple(psnr(image, reference, region).tolist()), tuple(ssim(image, reference, region).tolist()))


def psnr(image: Tensor, reference: Tensor, region: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB, [B]: -10·log10 of the mean squared error, for values in [0,1].

    image, reference: float [B,C,H,W]; region: bool [B,H,W]. Infinite where both are identical. Raises ValueError
    for an empty region.
    """
    error = ((image - reference) ** 2).mean(dim=1)
    return -10 * torch.log10(_mean_over(error, region, "the mask is empty"))


def ssim(image: Tensor, reference: Tensor, region: Tensor | None = None) -> Tensor:
    """Structural similarity (Wang et al. 2004, eq. 13), [B]: the mean of `ssim_map`, over the region if there is one.

    image, reference: float [B,C,H,W]; region: bool [B,H,W]; a pixel counts when the window around it lies inside the
    picture. Raises ValueError when the picture is smaller than the window or no pixel counts.
    """
    similarity = ssim_map(image, reference)
    edge = WINDOW // 2
    inner = None if region is None else region[:, edge:-edge, edge:-edge]
    return _mean_over(
        similarity, inner, f"the mask is empty but for the outermost {edge} pixels, where SSIM has no value"
    )


def ssim_map(image: Tensor, reference: Tensor) -> Tensor:
    """Structural similarity around each pixel, mean of the channels: [B,C,H,W] to [B,H-10,W-10].

    As in the paper: 11 × 11 Gaussian window of σ 1.5, values in [0,1], covariances divided by N, K1 0.01, K2 0.03; only
    windows that lie inside the picture. Raises ValueError when there is none.
    """
    height, width = image.shape[-2:]
    if min(height, width) < WINDOW:
        raise ValueError(f"SSIM needs pictures of at least {WINDOW}×{WINDOW} pixels, got {width}×{height}")
    x, y = image, reference
    mx, my, xx, yy, xy = (_blur(each) for each in (x, y, x * x, y * y, x * y))
    vx, vy, vxy = xx - mx * mx, yy - my * my, xy - mx * my
    return ((2 * mx * my + C1) * (2 * vxy + C2) / ((mx * mx + my * my + C1) * (vx + vy + C2))).mean(dim=1)


def _blur(x: Tensor) -> Tensor:
    """Gaussian mean over every window inside the picture, [B,C,H,W] -> [B,C,H-10,W-10]."""
    offsets = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    weights = torch.exp(-(offsets**2) / (2 * WINDOW_SIGMA**2))
    weights = weights / weights.sum()
    flat = x.flatten(0, 1)[:, None]
    blurred = F.conv2d(F.conv2d(flat, weights.view(1, 1, -1, 1)), weights.view(1, 1, 1, -1))
    return blurred[:, 0].unflatten(0, x.shape[:2])


def _mean_over(values: Tensor, region: Tensor | None, empty: str) -> Tensor:
    """Mean of each map [B,H,W] over its region."""
    if region is None:
        return values.mean(dim=(1, 2))
    count = region.sum(dim=(1, 2))
    if not count.all():
        raise ValueError(f"{empty} (mask {int((count == 0).nonzero()[0]) + 1} of {len(count)})")
    return (values * region).sum(dim=(1, 2)) / count


def _pixels(name: str, x: Tensor) -> Tensor:
    """A picture [B,H,W,C] as float32 [B,C,H,W] without alpha. Raises ValueError for another shape, NaN or infinity."""
    if x.ndim != 4:
        raise ValueError(f"{name} has the shape [batch, height, width, channels], got {tuple(x.shape)}")
    x = (x[..., :3] if x.shape[-1] == 4 else x).float().movedim(-1, 1)
    if not torch.isfinite(x).all():
        raise ValueError(f"{name} has values that are not finite")
    return x


def _check_sizes(shapes: dict[str, torch.Size]) -> None:
    sizes = {name: tuple(shape[-2:]) for name, shape in shapes.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {width}×{height}" for name, (height, width) in sizes.items())
        raise ValueError(f"different sizes (width×height): {listed}. Scale or crop them to one size first")


def _common_batch(counts: dict[str, int]) -> int:
    several = {count for count in counts.values() if count != 1}
    if len(several) > 1 or 0 in several:
        listed = ", ".join(f"{name} {count}" for name, count in counts.items())
        raise ValueError(f"batches that do not match: {listed}. Each must be 1 or one common number")
    return max(counts.values())


def _line(psnr_db: float, similarity: float) -> str:
    value = "∞ (identical)" if psnr_db == float("inf") else f"{psnr_db:.2f} dB"
    return f"PSNR {value}, SSIM {similarity:.4f}"
