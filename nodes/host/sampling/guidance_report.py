"""What guidance did at each guided step, to be read after the sampler has run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...core.maps.saliency import Saliency
from ...core.methods.word_places import Places
from .runs import Runs, SamplerRun


@dataclass(frozen=True)
class GuidedStep:
    """What happened at one guided step, or at one model call of it, to S words in B pictures.

    labels: of the words. before, after: their losses [S,B] at the state that the step began with, and at the last one
    that was measured. remaining: of each picture [B], before, what is compared with the `limits`: it is changed again
    while that is above them; without limits it is changed as often as the step wants.
    changed: by how much the pictures' state changed in quadratic mean, as a share of σ, or of what the prediction was
    changed by [B]. updates: how often it was changed [B]. unknown: pictures without a finite gradient [B]. enough:
    pictures whose loss is small enough, or was once and is to be left alone from then on [B]. saliency: the maps that
    the losses are about, before, if there are any. Of a step that was skipped only `skipped`, why.
    """

    step: int
    sigma: float
    labels: tuple[str, ...] = ()
    before: Tensor | None = None
    after: Tensor | None = None
    remaining: Tensor | None = None
    limits: tuple[float, ...] = ()
    changed: Tensor | None = None
    updates: Tensor | None = None
    unknown: Tensor | None = None
    enough: Tensor | None = None
    saliency: Saliency | None = None
    skipped: str = ""

    def described(self) -> Iterator[str]:
        """One line, or one for each picture of a batch."""
        head = f"step {self.step}: sigma {self.sigma:.4f}"
        if self.before is None:
            yield f"{head}, skipped: {self.skipped}"
            return
        count = self.before.shape[1]
        for i in range(count):
            words = (
                f"{label} {before:.3f}" + (f" → {after:.3f}" if self.updates[i] > 1 else "")
                for label, before, after in zip(
                    self.labels, self.before[:, i].tolist(), self.after[:, i].tolist(), strict=True
                )
            )
            if self.unknown[i]:
                done = "not changed: its gradient is not finite"
            elif not self.updates[i]:
                done = f"not changed: {self._reason(i)}"
            else:
                many = f", {int(self.updates[i])} updates" if self.updates[i] > 1 else ""
                done = f"changed by {float(self.changed[i]):.1%} of sigma{many}"
            picture = f", picture {i + 1}" if count > 1 else ""
            yield f"{head}{picture}: loss of {', '.join(words)}; {done}"

    def _reason(self, picture: int) -> str:
        """Why a picture with a finite gradient was not changed."""
        if self.enough[picture]:
            return "the loss is small enough"
        if not self.before[:, picture].any():
            return "the loss is 0 already"
        return "no change of the latent, where it may change, would lessen the loss"


@dataclass
class GuidedRun(SamplerRun):
    """The guided steps of one sampler run. notes: how it was guided. acting: what changes its predictions, if so.

    places: where the words belong, if that is what it was guided by.
    """

    places: Places | None = None
    steps: list[GuidedStep] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    acting: Any = None

    def content(self) -> list[Tensor]:
        """See `SamplerRun`."""
        measured = [step for step in self.steps if step.before is not None]
        maps = [step.saliency.maps for step in measured if step.saliency is not None]
        return maps + [each for step in measured for each in (step.before, step.after, step.changed)]

    def to_cpu(self) -> None:
        """See `SamplerRun`."""
        if self.acting is not None:
            self.acting.finish()
        self.acting = None
        self.steps = [_on_cpu(step) for step in self.steps]


class GuidanceReport:
    """Handle of a guided model (EL_REPORT): samplers that run the model fill it. giver: the node that made it.

    places: see `GuidedRun`.
    """

    def __init__(self, giver: str, places: Places | None = None) -> None:
        self.giver = giver
        self.runs: Runs[GuidedRun] = Runs(lambda: GuidedRun(places=places), "report", giver)

    def steps(self, samples: Tensor) -> list[GuidedStep]:
        """The guided steps of the finished run that made `samples`, on the CPU. Raises ValueError as `Runs.of`."""
        return self.runs.of(samples).steps

    def text(self, samples: Tensor) -> str:
        """A line for each guided step and picture, then notes. Raises ValueError as `Runs.of`."""
        run = self.runs.of(samples)
        lines = [line for step in run.steps for line in step.described()]
        return "\n".join([*(lines or ["no step was guided"]), *run.notes])

    def outputs(self, samples: Tensor) -> tuple[ExecutionBlocker, Saliency | ExecutionBlocker, str]:
        """See `report.Report`: no masks, the maps of all guided steps, and the text."""
        blocked = ExecutionBlocker("Guidance changes the whole latent, so this report has no masks.")
        return blocked, _joined(self.steps(samples)), self.text(samples)


def _joined(steps: Sequence[GuidedStep]) -> Saliency | ExecutionBlocker:
    """The maps of all guided steps as one saliency, labelled `word, step j`."""
    found = [step for step in steps if step.saliency is not None]
    if not found:
        return ExecutionBlocker("No step of this run was guided by words, so there are no maps.")
    maps = torch.cat([step.saliency.maps for step in found])
    labels = tuple(f"{label}, step {step.step}" for step in found for label in step.saliency.labels)
    return replace(found[-1].saliency, maps=maps, labels=labels, sigma=found[-1].sigma, step=None)


def _on_cpu(step: GuidedStep) -> GuidedStep:
    if step.before is None:
        return step
    names = ("before", "after", "remaining", "changed", "updates", "unknown", "enough")
    tensors = {name: getattr(step, name).cpu() for name in names}
    maps = None if step.saliency is None else step.saliency.mapped(Tensor.cpu)
    return replace(step, **tensors, saliency=maps)
