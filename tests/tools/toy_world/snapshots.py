"""A training that can be broken off: what its next step depends on, in a file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

log = logging.getLogger("toy_world")
SNAPSHOT_STEPS = 500


class Stateful(Protocol):
    """An optimiser, a learning rate or an average."""

    def state_dict(self) -> dict:
        """Everything that it depends on."""

    def load_state_dict(self, state: dict) -> Any:
        """Go on from a `state_dict`."""


class Snapshot:
    """Writes everything to `path` now and then; a run that finds it goes on and ends as if it had never stopped.

    parameters: what is trained. parts: what else changes in a step. generators: of random numbers, beside PyTorch's
    own: how to read the state of each, and how to set it.
    """

    def __init__(
        self,
        path: Path,
        parameters: Sequence[nn.Parameter],
        parts: Mapping[str, Stateful],
        generators: Mapping[str, tuple[Callable[[], Any], Callable[[Any], Any]]],
    ) -> None:
        self._path, self._parameters, self._parts = path, parameters, parts
        self._generators = {**generators, "torch": (torch.get_rng_state, torch.set_rng_state)}
        if parameters[0].device.type == "cuda":
            self._generators["cuda"] = (torch.cuda.get_rng_state, torch.cuda.set_rng_state)

    def after(self, step: int) -> None:
        """Write the file every `SNAPSHOT_STEPS` steps. step: how many are done."""
        if step % SNAPSHOT_STEPS:
            return
        state = {"step": step, "parameters": [p.detach() for p in self._parameters]}
        state |= {name: part.state_dict() for name, part in self._parts.items()}
        whole(self._path, state | {"generators": {name: read() for name, (read, _) in self._generators.items()}})

    def restore(self) -> int:
        """The number of steps that are done already; everything is then as it was after them."""
        if not self._path.exists():
            return 0
        state = torch.load(self._path, weights_only=True, map_location="cpu")
        with torch.no_grad():
            for parameter, value in zip(self._parameters, state["parameters"], strict=True):
                parameter.copy_(value)
        for name, part in self._parts.items():
            part.load_state_dict(state[name])
        for name, (_, write) in self._generators.items():
            write(state["generators"][name])
        log.info("going on after step %d", state["step"])
        return state["step"]


def whole(path: Path, state: dict) -> None:
    """Save a state whole or not at all."""
    part = path.with_suffix(".part")
    torch.save(state, part)
    part.replace(path)
