"""Which sampler run a latent came from: what runs leave behind is kept until the same node samples again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch
from comfy_execution.utils import get_executing_context
from torch import Tensor

# A sampler node fed with a list runs several times; more than these are forgotten, oldest first.
_KEPT = 16

Kept = TypeVar("Kept", bound="SamplerRun")


@dataclass
class SamplerRun:
    """One run of a sampler and the latent it made.

    node: id of the node that sampled; prompt: id of the queued workflow; both None outside the host's execution.
    samples: the result, None until the run has ended.
    """

    node: str | None
    prompt: str | None
    samples: Tensor | None = None

    @classmethod
    def start(cls: type[Kept]) -> Kept:
        """A run of the node that the host executes now."""
        context = get_executing_context()
        return cls(None, None) if context is None else cls(context.node_id, context.prompt_id)

    def finish(self, samples: Tensor) -> None:
        """Keep the result as the run's mark."""
        self.samples = samples.detach().to("cpu", copy=True)


def keep(runs: list[Kept], run: Kept) -> list[Kept]:
    """The runs to remember after `run`: a sampler node that runs again replaces what it left when it ran before."""
    others = [old for old in runs if old.node != run.node or (run.prompt is not None and old.prompt == run.prompt)]
    return [*others, run][-_KEPT:]


def run_of(runs: list[Kept], samples: Tensor, giver: str) -> Kept | None:
    """The run whose result is `samples`; if the only run's result was changed since, that run; None without any.

    Several samplers may share one patched model; their runs are told apart by the latent they made. giver: display name
    of the node that patched the model. Raises ValueError when it cannot be told which run is meant.
    """
    made = [run for run in runs if run.samples.shape == samples.shape and _same(run.samples, samples)]
    if not made and len(runs) > 1:
        raise ValueError(
            f"{len(runs)} samplers ran the model of {giver} and none of them made this latent: connect the latent of "
            f"the sampler that is meant directly, or give each sampler a {giver} of its own"
        )
    return made[-1] if made else runs[-1] if runs else None


def _same(mark: Tensor, samples: Tensor) -> bool:
    return torch.equal(mark.to(samples.dtype), samples.cpu())
