"""Where source and target are in the batch of a twin run, which samples both for every latent of the user's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# What may stand beside source and target: a picture that gives its appearance, and the target as it would be without.
SOURCE, TARGET, APPEARANCE, WITHOUT = "source", "target", "appearance", "target without appearance"

# Of what a twin run installs on its model.
TWIN_KEY = "explainable_latents.twin_sampling"

# In transformer_options: the `TwinBlocks` of the run that goes on.
_TWIN = "explainable_latents.twin"


@dataclass(frozen=True)
class TwinBlocks:
    """A sampler's batch in a twin run: blocks of `batch` pictures, one behind the other.

    texts: id of each positive conditioning -> the contexts [1 or batch,T,d] of each block, which in the conditioning
    itself stand one behind the other, repeated to a common length. names: of the blocks, SOURCE and TARGET first.
    """

    batch: int
    texts: Mapping[Any, tuple[Tensor, ...]] = field(default_factory=dict)
    names: tuple[str, ...] = (SOURCE, TARGET)

    @property
    def size(self) -> int:
        """How many rows all blocks have together."""
        return len(self.names) * self.batch

    def rows(self, block: str) -> slice:
        """Those of a block."""
        start = self.names.index(block) * self.batch
        return slice(start, start + self.batch)

    def with_blocks(self, x: Tensor, blocks: Mapping[str, Tensor]) -> Tensor:
        """`x` [size,...] with other content in some blocks; `x` itself if there are none."""
        if not blocks:
            return x
        return torch.cat([blocks.get(name, x[self.rows(name)]) for name in self.names])

    def text(self, cond: Mapping, block: str) -> Tensor | None:
        """The context of a block in a positive conditioning; None if it has none."""
        texts = self.texts.get(cond.get("uuid"))
        return None if texts is None else texts[self.names.index(block)]


def announced(options: Mapping, blocks: TwinBlocks) -> dict:
    """A copy of a run's model options with which everything in it finds its blocks."""
    return {**options, "transformer_options": {**options.get("transformer_options", {}), _TWIN: blocks}}


def twin_blocks(options: Mapping) -> TwinBlocks | None:
    """The blocks of the twin run with these model options; None in any other run."""
    return options.get("transformer_options", {}).get(_TWIN)
