"""What one sampler run leaves in an attention capture, and the handle to read it by."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.attention.aggregate import aggregate, normalise, resize
from ...core.maps.saliency import Saliency, over_steps
from ...core.words.subjects import Subjects
from ..sampling.runs import SamplerRun

if TYPE_CHECKING:
    from .observer import Observer


@dataclass
class CapturedRun(SamplerRun):
    """The aggregated map of every model call of a run, and each layer's sum over the calls.

    layers: (layer name, (h_n, w_n)) -> [S,B,h_n,w_n]. refined: the calls' refined sums of the layers added up,
    [S,B,h,w], None where maps are not refined. last: the map of the sampler's most recent model call, None when
    that call showed no attention or was not captured. notes: what was warned of while it ran. capturing: whether
    the sampler's next model call is captured.
    """

    saliencies: list[Saliency] = field(default_factory=list)
    layers: dict[tuple[str, tuple[int, int]], Tensor] = field(default_factory=dict)
    refined: Tensor | None = None
    last: Saliency | None = None
    notes: list[str] = field(default_factory=list)
    capturing: bool = True

    def see(self, saliency: Saliency | None, layers: dict[str, Tensor], refined: Tensor | None) -> None:
        """Take in one model call of the sampler; None when the subjects' prompt took no part in it.

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

    def layer_saliency(self, subjects: tuple[int, ...]) -> Saliency:
        """Each layer's own map of the `subjects`, as it was read, summed over the calls: `word, layer (h x w)`."""
        last = self.saliencies[-1].select(subjects)
        maps = [normalise(resize(layer[list(subjects)], last.grid)) for layer in self.layers.values()]
        labels = tuple(f"{label}, {name} ({h}x{w})" for name, (h, w) in self.layers for label in last.labels)
        return replace(last, maps=torch.cat(maps), labels=labels, step=None)

    def total(self, mode: str) -> Saliency:
        """The maps of every subject over all calls so far, added up before they are normalised. mode: see `resize`."""
        last = self.saliencies[-1]
        if self.refined is not None:
            return replace(last, maps=normalise(self.refined), step=None)
        return replace(last, maps=aggregate(list(self.layers.values()), last.grid, mode), step=None)


def no_attention(words: Sequence[str], where: str, reasons: Sequence[str]) -> ValueError:
    """The error for a model call or a run, said by `where`, in which no attention to the words was seen.

    reasons: what may be the cause, the most certain first.
    """
    return ValueError(f"no attention to {', '.join(words)} was seen {where}: {'; or '.join(reasons)}")


class AttentionCapture:
    """Handle of an observed model (EL_ATTENTION): filled while samplers run, read afterwards.

    subjects: whose attention is captured. It holds sums per subject only, never a whole attention matrix.
    """

    def __init__(self, observer: Observer) -> None:
        self.subjects: Subjects = observer.subjects
        self.runs = observer.runs
        self._observer = observer

    def latest(self) -> Saliency | None:
        """Map of the most recent model call: every subject, B = latent batch, each summing to 1; None before the first.

        While a sampler runs only that run counts.
        """
        run = self.runs.latest()
        return run.saliencies[-1] if run and run.saliencies else None

    def nothing_seen(self, where: str, otherwise: str) -> ValueError:
        """The error for the most recent run, see `no_attention`: what was warned of while it ran, or `otherwise`."""
        run = self.runs.latest()
        return no_attention(self.subjects.labels, where, [*(run.notes if run else []), otherwise])

    def capture_calls(self, wanted: bool) -> None:
        """While a sampler runs: whether its model calls from now on are captured; those that are not run compiled."""
        self.runs.current.capturing = wanted

    def before_step(self) -> Saliency | None:
        """While a sampler runs, between two of its steps: the map of its last model call, None when that had none."""
        return self.runs.current.last

    def until_step(self) -> Saliency | None:
        """While a sampler runs, between two of its steps: the maps of its calls so far added up before they are
        normalised; None when none of them had any."""
        run = self.runs.current
        return run.total(self._observer.resize) if run.saliencies else None

    def ask(self, predict: Callable[[], object]) -> Saliency | None:
        """The map of the model call that `predict` makes, which is no step of the sampler; None when it has none."""
        return self._observer.ask(predict)

    def saliency(self, samples: Tensor, role: str, how: str, each_layer: bool = False) -> Saliency:
        """Maps of the finished run that made `samples` (see `Runs.of`), on the CPU.

        role: all, subject or scene. how: see `core.saliency.over_steps`. each_layer: one map per layer instead, summed
        over the steps. Raises ValueError when there is nothing of that kind.
        """
        run = self.runs.of(samples)
        if not run.saliencies:
            otherwise = "start and end percent of Capture Attention include none of the sampler's steps (0 and 1: all)"
            raise no_attention(self.subjects.labels, "while this latent was sampled", [*run.notes, otherwise])
        self.subjects.with_role(role)
        picked = tuple(i for i, item in enumerate(self.subjects.items) if role in ("all", item.role))
        if each_layer:
            return run.layer_saliency(picked)
        total = run.total(self._observer.resize).select(picked)
        return over_steps([call.select(picked) for call in run.saliencies], how, total.maps)
