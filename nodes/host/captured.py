"""What one sampler run leaves in an attention capture."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..core.attention import normalise, resize
from ..core.saliency import Saliency
from .runs import SamplerRun


@dataclass
class CapturedRun(SamplerRun):
    """The aggregated map of every model call of a run, and each layer's sum over the calls.

    layers: (layer name, (h_n, w_n)) -> [S,B,h_n,w_n].
    """

    saliencies: list[Saliency] = field(default_factory=list)
    layers: dict[tuple[str, tuple[int, int]], Tensor] = field(default_factory=dict)

    def add(self, saliency: Saliency, layers: dict[str, Tensor]) -> None:
        """Take in one model call."""
        self.saliencies.append(saliency)
        for name, maps in layers.items():
            key = (name, tuple(maps.shape[-2:]))
            self.layers[key] = self.layers[key] + maps if key in self.layers else maps

    def finish(self, samples: Tensor) -> None:
        """Keep the result as the run's mark, and leave the compute device."""
        super().finish(samples)
        self.saliencies = [saliency.with_maps(saliency.maps.cpu()) for saliency in self.saliencies]
        self.layers = {key: maps.cpu() for key, maps in self.layers.items()}

    def layer_saliency(self, subjects: tuple[int, ...]) -> Saliency:
        """Each layer's own map of the `subjects`, mean over the steps, labelled `word, layer (h x w)`."""
        last = self.saliencies[-1].select(subjects)
        maps = [normalise(resize(layer[list(subjects)], last.grid)) for layer in self.layers.values()]
        labels = tuple(f"{label}, {name} ({h}x{w})" for name, (h, w) in self.layers for label in last.labels)
        return replace(last, maps=torch.cat(maps), labels=labels, step=None)
