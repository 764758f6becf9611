"""Where source and target are in the batch of a twin run, which samples both for every latent of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

SOURCE, TARGET = BLOCKS = ("source", "target")

# In transformer_options: the `TwinBlocks` of the run that goes on.
_TWIN = "explainable_latents.twin"


@dataclass(frozen=True)
class TwinBlocks:
    """A sampler's batch in a twin run: `batch` source pictures, then as many target pictures.

    texts: id of each positive conditioning -> the contexts [1 or batch,T,d] of its source and its target, which in the
    conditioning itself stand one behind the other, repeated to a common length.
    """

    batch: int
    texts: Mapping[Any, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def rows(self, block: str) -> slice:
        """Those of SOURCE or TARGET."""
        start = 0 if block == SOURCE else self.batch
        return slice(start, start + self.batch)

    def text(self, cond: Mapping, block: str) -> Tensor | None:
        """The context of SOURCE or TARGET in a positive conditioning; None if it has none."""
        texts = self.texts.get(cond.get("uuid"))
        return None if texts is None else texts[BLOCKS.index(block)]


def announced(options: Mapping, blocks: TwinBlocks) -> dict:
    """A copy of a run's model options with which everything in it finds its blocks."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), _TWIN: blocks}}


def twin_blocks(options: Mapping) -> TwinBlocks | None:
    """The blocks of the twin run with these model options; None in any other run."""
    return options.get("transformer_options", {}).get(_TWIN)
