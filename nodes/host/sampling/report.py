"""What happened at the manipulated steps, to be read after the sampler has run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...core.maps.masks import enlarge
from ...core.maps.saliency import Saliency, joined
from ..pauses.records import Record, of_variants, recorded
from .runs import Runs, SamplerRun


@dataclass(frozen=True)
class Manipulation:
    """What happened at one manipulated step.

    mask: [B or 1,h,w] or [B,C,h,w], 1 inside. saliency: the maps that the mask was made from; None for a given mask.
    """

    step: int
    sigma: float
    mask: Tensor
    saliency: Saliency | None


@dataclass
class ManipulatedRun(SamplerRun):
    """The manipulations of one sampler run, in their order.

    notes: how the sampler had to be treated for them, and how its pauses ended. records: what the user answered there.
    """

    manipulations: list[Manipulation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def add(self, manipulation: Manipulation) -> None:
        """Add one manipulated step."""
        self.manipulations.append(manipulation)

    def content(self) -> list[Tensor]:
        """See `SamplerRun`."""
        masks = [entry.mask for entry in self.manipulations]
        saliencies = [entry.saliency for entry in self.manipulations if entry.saliency is not None]
        return masks + [maps for saliency in saliencies for maps in saliency.every]

    def to_cpu(self) -> None:
        """See `SamplerRun`."""
        self.manipulations = [_on_cpu(manipulation) for manipulation in self.manipulations]


class Report:
    """Handle of a model with masked-latent sampling (EL_REPORT): samplers that run the model fill it.

    spatial_scale: picture pixels per latent pixel.
    """

    def __init__(self, spatial_scale: int) -> None:
        self.runs: Runs[ManipulatedRun] = Runs(ManipulatedRun, "report", "Masked Latent (model patch)")
        self._scale = spatial_scale

    def manipulations(self, samples: Tensor) -> list[Manipulation]:
        """The manipulated steps of the finished run that made `samples`, on the CPU.

        Raises ValueError as `Runs.of`.
        """
        return self.runs.of(samples).manipulations

    def outputs(self, samples: Tensor) -> tuple[Tensor | ExecutionBlocker, Saliency | ExecutionBlocker, str]:
        """Return the outputs of a report's node: MASK [N·B,H,W] of N manipulated steps, their saliency, and a text.

        Masks are in picture pixels, step after step, of a batch of variants one after the other. An output that the run
        does not have blocks the nodes after it with a message. Raises ValueError as `Runs.of`.
        """
        runs = self.runs.parts(samples) or [self.runs.of(samples)]
        found = [entry for run in runs for entry in run.manipulations]
        lines = of_variants([[described(run.manipulations), *run.notes] for run in runs])
        text = "\n".join([*lines, *recorded([run.records for run in runs])])
        return picture_masks(found, self._scale), joined_saliency([run.manipulations for run in runs]), text


def picture_masks(manipulations: Sequence[Manipulation], scale: int) -> Tensor | ExecutionBlocker:
    """The masks of all manipulated steps as MASK, every latent pixel a square of `scale` × `scale` picture pixels.

    Where each latent channel has a mask of its own, their mean is taken.
    """
    if not manipulations:
        return ExecutionBlocker(
            "manipulate_at names no step, so there is no mask. Write shares of the run (15%, 50%, 80%) or step numbers "
            "(5, 18, 28)."
        )
    masks = torch.cat([entry.mask if entry.mask.ndim == 3 else entry.mask.mean(1) for entry in manipulations])
    return enlarge(masks, scale).float().cpu()


def joined_saliency(variants: Sequence[Sequence[Manipulation]]) -> Saliency | ExecutionBlocker:
    """The maps of all manipulated steps of each variant as one saliency, labelled `word, step j`.

    Where there are several variants `variant i` stands behind it.
    """
    numbers = [""] if len(variants) == 1 else [f", variant {number}" for number in range(1, len(variants) + 1)]
    found = [
        (entry, number)
        for entries, number in zip(variants, numbers, strict=True)
        for entry in entries
        if entry.saliency is not None
    ]
    if not found:
        return ExecutionBlocker("The masks of this run were given, not found by attention, so there is no saliency.")
    labels = tuple(f"{label}, step {entry.step}{number}" for entry, number in found for label in entry.saliency.labels)
    maps = joined([entry.saliency for entry, _ in found], torch.cat, labels).mapped(Tensor.cpu)
    return replace(maps, sigma=found[-1][0].sigma)


def described(manipulations: Sequence[Manipulation]) -> str:
    """One line per manipulated step: its number, σ, and the share of the latent inside the mask."""
    lines = [f"step {m.step}: sigma {m.sigma:.4f}, {float(m.mask.mean()):.1%} inside" for m in manipulations]
    return "\n".join(lines) or "no step was manipulated"


def _on_cpu(manipulation: Manipulation) -> Manipulation:
    saliency = manipulation.saliency
    on_cpu = None if saliency is None else saliency.mapped(Tensor.cpu)
    return replace(manipulation, mask=manipulation.mask.cpu(), saliency=on_cpu)
