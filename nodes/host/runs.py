"""What sampler runs leave in a capture, and which run a latent came from."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from comfy_execution.utils import get_executing_context
from torch import Tensor

from ..core.attention import normalise, resize
from ..core.saliency import Saliency

# A sampler node fed with a list runs several times; more than these are forgotten, oldest first.
_KEPT = 16


@dataclass
class Run:
    """One sampler run: the aggregated map of every model call, and each layer's sum over the calls.

    node: id of the node that sampled; prompt: id of the queued workflow; both None outside the host's execution.
    layers: (layer name, (h_n, w_n)) -> [S,B,h_n,w_n].
    """

    node: str | None
    prompt: str | None
    saliencies: list[Saliency] = field(default_factory=list)
    layers: dict[tuple[str, tuple[int, int]], Tensor] = field(default_factory=dict)
    samples: Tensor | None = None

    @classmethod
    def start(cls) -> Run:
        """A run of the node that the host executes now."""
        context = get_executing_context()
        return cls(None, None) if context is None else cls(context.node_id, context.prompt_id)

    def add(self, saliency: Saliency, layers: dict[str, Tensor]) -> None:
        """Take in one model call."""
        self.saliencies.append(saliency)
        for name, maps in layers.items():
            key = (name, tuple(maps.shape[-2:]))
            self.layers[key] = self.layers[key] + maps if key in self.layers else maps

    def finish(self, samples: Tensor) -> None:
        """Keep the result as the run's mark, and leave the compute device."""
        self.samples = samples.detach().to("cpu", copy=True)
        self.saliencies = [saliency.with_maps(saliency.maps.cpu()) for saliency in self.saliencies]
        self.layers = {key: maps.cpu() for key, maps in self.layers.items()}

    def layer_saliency(self, subjects: tuple[int, ...]) -> Saliency:
        """Each layer's own map of the `subjects`, mean over the steps, labelled `word, layer (h x w)`."""
        last = self.saliencies[-1].select(subjects)
        maps = [normalise(resize(layer[list(subjects)], last.grid)) for layer in self.layers.values()]
        labels = tuple(f"{label}, {name} ({h}x{w})" for name, (h, w) in self.layers for label in last.labels)
        return Saliency(torch.cat(maps), labels, last.sigma, None, last.grid)


def keep(runs: list[Run], run: Run) -> list[Run]:
    """The runs to remember after `run`: a sampler node that runs again replaces what it left when it ran before."""
    others = [old for old in runs if old.node != run.node or (run.prompt is not None and old.prompt == run.prompt)]
    return [*others, run][-_KEPT:]


def run_of(runs: list[Run], samples: Tensor) -> Run:
    """The run whose result is `samples`; if the only run's result was changed since, that run.

    Several samplers may share one observed model; their runs are told apart by the latent they made.
    Raises ValueError when nothing was captured, or when it cannot be told which run is meant.
    """
    filled = [run for run in runs if run.saliencies]
    if not filled:
        raise ValueError(
            "the capture is empty: connect the model output of Capture Attention to the sampler whose latent is "
            "connected here, and check that start and end percent include some of its steps. The log says if "
            "another node kept its attention from being read."
        )
    made = [run for run in filled if run.samples.shape == samples.shape and _same(run.samples, samples)]
    if not made and len(filled) > 1:
        raise ValueError(
            f"{len(filled)} samplers ran the observed model and none of them made this latent: connect the latent of "
            f"the "
            "sampler that is meant directly, or give each sampler a Capture Attention of its own"
        )
    return (made or filled)[-1]


def _same(mark: Tensor, samples: Tensor) -> bool:
    return torch.equal(mark.to(samples.dtype), samples.cpu())
