"""What a capture keeps of one sampler run: sums of maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ...core.attention.aggregate import aggregate, normalise, resize
from ...core.maps.saliency import Saliency
from ..sampling.runs import SamplerRun
from .model_call import Refined


@dataclass
class CapturedRun(SamplerRun):
    """The aggregated map of every model call of a run, and each layer's sum over the calls.

    layers: (layer name or `Refined`, (h_n, w_n)) -> [S,B,h_n,w_n]. grids: the same -> (h, w) of the layer's own places,
    which are fewer where they were spread over a latent that is no multiple of them. last: the map of the sampler's
    most recent model call; None if that call showed no attention or was not captured. notes: the warnings while it ran.
    capturing: whether the sampler's next model call is captured.
    """

    saliencies: list[Saliency] = field(default_factory=list)
    layers: dict[tuple[str | Refined, tuple[int, int]], Tensor] = field(default_factory=dict)
    grids: dict[tuple[str | Refined, tuple[int, int]], tuple[int, int]] = field(default_factory=dict)
    last: Saliency | None = None
    notes: list[str] = field(default_factory=list)
    capturing: bool = True

    def see(
        self, saliency: Saliency | None, layers: Mapping[str | Refined, Tensor], grids: Mapping[str, tuple[int, int]]
    ) -> None:
        """Add one model call of the sampler.

        saliency: None if the subjects' prompt was not active in it. grids: of layers; that of their maps for others.
        """
        self.last = saliency
        if saliency is None:
            return
        self.saliencies.append(saliency)
        for name, maps in layers.items():
            key = (name, tuple(maps.shape[-2:]))
            self.layers[key] = self.layers[key] + maps if key in self.layers else maps
            self.grids[key] = grids.get(name, key[1])

    def content(self) -> list[Tensor]:
        """See `SamplerRun`."""
        return [*(maps for saliency in self.saliencies for maps in saliency.every), *self.layers.values()]

    def to_cpu(self) -> None:
        """See `SamplerRun`."""
        self.saliencies = [saliency.mapped(Tensor.cpu) for saliency in self.saliencies]
        self.layers = {key: maps.cpu() for key, maps in self.layers.items()}
        self.last = None

    def layer_saliency(self, words: tuple[int, ...], scores: int = 0) -> Saliency:
        """Each layer's own map of the `words`, as it was read, summed over the calls: `word, layer (h x w)`.

        scores: so many of all words' maps, see `normalise`.
        """
        last = self.saliencies[-1].select(words)
        layers = {key: maps for key, maps in self.layers.items() if not isinstance(key[0], Refined)}
        maps = [normalise(resize(layer, last.grid), scores)[list(words)] for layer in layers.values()]
        places = [(name, *self.grids[name, size]) for name, size in layers]
        labels = tuple(f"{label}, {name} ({h}x{w})" for name, h, w in places for label in last.labels)
        return replace(last, maps=torch.cat(maps), labels=labels, step=None, refined=0, less_refined=())

    def total(self, mode: str, scores: int = 0) -> Saliency:
        """The maps of every word over all calls so far, added up before they are normalised.

        mode: see `resize`. scores: see `normalise`.
        """
        last, layers = self.saliencies[-1], [(name, maps) for (name, _), maps in self.layers.items()]
        *less, maps = every_power(layers, last.refined, last.grid, mode, scores)
        return replace(last, maps=maps, less_refined=tuple(less), step=None)


def every_power(
    layers: Iterable[tuple[str | Refined, Tensor]], power: int, grid: tuple[int, int], mode: str, scores: int = 0
) -> list[Tensor]:
    """The words' maps [S,B,h,w] from the maps of layers by name, refined from 0 to `power` times.

    Those of 0 times are the aggregated maps of the layers as they were read. mode: see `resize`. scores: see
    `normalise`.
    """
    sources: list[list[Tensor]] = [[] for _ in range(power + 1)]
    for name, maps in layers:
        sources[name.power if isinstance(name, Refined) else 0].append(maps)
    return [aggregate(maps, grid, mode, scores) for maps in sources]
