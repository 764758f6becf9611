"""Saliency maps of subjects over the latent grid: the value that crosses nodes as EL_SALIENCY."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Saliency:
    """One map per subject, on the grid of the latent it belongs to.

    maps: float32, [S,B,h,w] (S subjects, B latents of the batch) or, for Abs-Grad-SAM, [S,B,C,h,w]; larger is more salient.
    labels: one word per subject, as typed in the prompt.
    sigma: noise level of the model call the maps come from, in the model's own units; of the last one when it is a mean of several.
    step: index in the sampler's schedule, None for a map of no single step (a mean, a probe).
    grid: (h, w) of the latent.
    Raises ValueError when the shapes contradict each other.
    """

    maps: Tensor
    labels: tuple[str, ...]
    sigma: float
    step: int | None
    grid: tuple[int, int]

    def __post_init__(self) -> None:
        shape = tuple(self.maps.shape)
        if self.maps.ndim not in (4, 5) or self.maps.dtype != torch.float32:
            raise ValueError(
                f"saliency maps are float32 of shape [S,B,h,w] or [S,B,C,h,w], got {self.maps.dtype} of shape {shape}"
            )
        if shape[0] != len(self.labels):
            raise ValueError(f"{shape[0]} saliency maps but {len(self.labels)} labels: {', '.join(self.labels)}")
        if shape[-2:] != tuple(self.grid):
            raise ValueError(f"saliency maps of shape {shape} do not lie on the latent grid {tuple(self.grid)}")

    def with_maps(self, maps: Tensor) -> Saliency:
        """The same saliency with other `maps` of the same layout (a smoothed or dilated copy)."""
        return replace(self, maps=maps)

    def select(self, indices: tuple[int, ...]) -> Saliency:
        """Only the subjects at `indices`, in that order."""
        return replace(self, maps=self.maps[list(indices)], labels=tuple(self.labels[i] for i in indices))
