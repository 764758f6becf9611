"""What is asked of the device, and the table of what it answered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

MIB = 2**20
HEAD = "| what | result | time | times the stock run | most memory |\n|---|---|---|---|---|"


@dataclass(frozen=True)
class Settings:
    """device: where. channels: of the network, 320 as SD 1.5. side: of the latent. steps, turns: of the measurements.

    compiler: backend of torch.compile.
    """

    device: torch.device
    channels: int
    side: int
    steps: int
    turns: int
    compiler: str

    @property
    def usual(self) -> str:
        """The precision that the host would choose."""
        return "float32" if self.device.type == "cpu" else "float16"


@dataclass(frozen=True)
class Row:
    """One line of the table: a check (`result`, `failed`), or a measurement.

    seconds: median. times: that of the stock run. memory: bytes beyond what the model takes, the most at any time.
    """

    name: str
    result: str = ""
    failed: bool = False
    seconds: float | None = None
    times: float | None = None
    memory: int | None = None

    def text(self) -> str:
        """As Markdown."""
        time = "" if self.seconds is None else f"{self.seconds * 1000:,.0f} ms"
        times = "" if self.times is None else f"{self.times:.2f}"
        memory = "" if self.memory is None else f"{self.memory / MIB:,.0f} MiB"
        return f"| {self.name} | {self.result}{' **FAILED**' * self.failed} | {time} | {times} | {memory} |"


def table(rows: Sequence[Row]) -> str:
    """All rows as Markdown."""
    return "\n".join([HEAD, *(row.text() for row in rows)])
