"""What a capture keeps of one sampler run: sums of maps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...core.attention.aggregate import aggregate, normalise, resize
from ...core.maps.saliency import Saliency
from ..sampling.runs import SamplerRun


@dataclass
class CapturedRun(SamplerRun):
    """The aggregated map of every model call of a run, and each layer's sum over the calls.

    layers: (layer name, (h_n, w_n)) -> [S,B,h_n,w_n]. refined: the calls' refined sums of the layers added up,
    [S,B,h,w]; None if maps are not refined. last: the map of the sampler's most recent model call; None if
    that call showed no attention or was not captured. notes: the warnings while it ran. capturing: whether
    the sampler's next model call is captured.
    """

    saliencies: list[Saliency] = field(default_factory=list)
    layers: dict[tuple[str, tuple[int, int]], Tensor] = field(default_factory=dict)
    refined: Tensor | None = None
    last: Saliency | None = None
    notes: list[str] = field(default_factory=list)
    capturing: bool = True

    def see(self, saliency: Saliency | None, layers: dict[str, Tensor], refined: Tensor | None) -> None:
        """Add one model call of the sampler. saliency: None if the subjects' prompt was not active in it.

        refined: see `ModelCall.total`.
        """
        self.last = saliency
        if saliency is None:
            return
        self.saliencies.append(saliency)
        for name, maps in layers.items():
            key = (name, tuple(maps.shape[-2:]))
            self.layers[key] = self.layers[key] + maps if key in self.layers else maps
        if refined is not None:
            self.refined = refined if self.refined is None else self.refined + refined

    def content(self) -> list[Tensor]:
        """See `SamplerRun`."""
        refined = [] if self.refined is None else [self.refined]
        return [*(saliency.maps for saliency in self.saliencies), *self.layers.values(), *refined]

    def to_cpu(self) -> None:
        """See `SamplerRun`."""
        self.saliencies = [saliency.with_maps(saliency.maps.cpu()) for saliency in self.saliencies]
        self.layers = {key: maps.cpu() for key, maps in self.layers.items()}
        self.refined = None if self.refined is None else self.refined.cpu()
        self.last = None

    def layer_saliency(self, words: tuple[int, ...], scores: int = 0) -> Saliency:
        """Each layer's own map of the `words`, as it was read, summed over the calls: `word, layer (h x w)`.

        scores: so many of all words' maps, see `normalise`.
        """
        last = self.saliencies[-1].select(words)
        maps = [normalise(resize(layer, last.grid), scores)[list(words)] for layer in self.layers.values()]
        labels = tuple(f"{label}, {name} ({h}x{w})" for name, (h, w) in self.layers for label in last.labels)
        return replace(last, maps=torch.cat(maps), labels=labels, step=None)

    def total(self, mode: str, scores: int = 0) -> Saliency:
        """The maps of every word over all calls so far, added up before they are normalised.

        mode: see `resize`. scores: see `normalise`.
        """
        last = self.saliencies[-1]
        if self.refined is not None:
            return replace(last, maps=normalise(self.refined, scores), step=None)
        return replace(last, maps=aggregate(list(self.layers.values()), last.grid, mode, scores), step=None)
