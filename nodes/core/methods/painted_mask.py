"""Masks that a user paints over found ones, and what of it is carried over to the next found mask.

A mask is [n,h,w] or, with one for each latent channel, [n,C,h,w]; what is painted is [n,h,w] and holds for all
channels.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


def shown(mask: Tensor) -> Tensor:
    """What a user sees of a mask: 8-bit levels [n,h,w], 255 inside; of several channels their mean."""
    flat = mask if mask.ndim == 3 else mask.mean(1)
    return (flat.detach().float().clamp(0, 1) * 255).round().to("cpu", torch.uint8)


def painted_over(mask: Tensor, levels: list[Tensor | None]) -> Tensor:
    """`mask` with other content for some of its n pictures, each as 8-bit levels [h,w]; `mask` itself if there is none.

    None leaves a picture's mask as it is.
    """
    if all(level is None for level in levels):
        return mask
    out = mask.clone()
    for i, level in enumerate(levels):
        if level is not None:
            out[i] = (level.float() / 255).to(mask)
    return out


@dataclass(frozen=True)
class Difference:
    """What was painted into a found mask and taken out of it, [n,h,w] each.

    least: the value that a place has at least, 0 where nothing was added. most: at most, 1 where nothing was removed.
    """

    least: Tensor
    most: Tensor

    @classmethod
    def between(cls, found: Tensor, painted: Tensor) -> Difference:
        """From the mask that was found to the one that was painted; of several channels their mean counts."""
        before, after = (mask.float() if mask.ndim == 3 else mask.float().mean(1) for mask in (found, painted))
        zero, one = torch.zeros_like(after), torch.ones_like(after)
        return cls(torch.where(after > before, after, zero), torch.where(after < before, after, one))

    def applied(self, found: Tensor) -> Tensor:
        """Another found mask with the same places added and removed: the union with what was added, less the rest."""
        least, most = (each if found.ndim == 3 else each.unsqueeze(1) for each in (self.least, self.most))
        return torch.minimum(torch.maximum(found, least.to(found)), most.to(found))
