"""What happened at the pauses of a sampler's runs, to be read after they have ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..pauses.records import Record, of_variants, recorded
from .runs import Runs, SamplerRun


@dataclass
class PausedRun(SamplerRun):
    """The pauses of one sampler run. notes: how each of them ended. records: what was answered."""

    notes: list[str] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)

    def content(self) -> list[Tensor]:
        """See `SamplerRun`: no tensors."""
        return []

    def to_cpu(self) -> None:
        """See `SamplerRun`."""


class PauseReport:
    """Handle of a model whose samplers pause (EL_REPORT): they fill it."""

    def __init__(self) -> None:
        self.runs: Runs[PausedRun] = Runs(PausedRun, "report", "Pause Sampling")

    def outputs(self, samples: Tensor) -> tuple[ExecutionBlocker, ExecutionBlocker, str]:
        """Return the outputs of a report's node, of which only the text holds anything.

        A batch of variants has the text of each. Raises ValueError as `Runs.of`.
        """
        runs = self.runs.parts(samples) or [self.runs.of(samples)]
        nothing = ExecutionBlocker("this is the report of Pause Sampling, which makes no masks: use its text")
        notes = of_variants([run.notes or ["no pause"] for run in runs])
        return nothing, nothing, "\n".join([*notes, *recorded([run.records for run in runs])])
