"""What a sampler run begins with, so that it can begin again and give the same, bit for bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from comfy.sampler_helpers import cleanup_models
from torch import Tensor

_SIGMAS = 3  # position among the arguments of an OUTER_SAMPLE wrapper


class FreshStart:
    """The arguments of an OUTER_SAMPLE wrapper, the guider's conditionings and the states of the random generators.

    Some samplers write into what they are given, and the host replaces the conditionings by those that it has encoded.
    """

    def __init__(self, guider: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self._guider = guider
        self._args, self._kwargs = _copied(args, kwargs)
        self._conds = _listed(guider.conds) if hasattr(guider, "conds") else None
        self._device = torch.device(guider.model_patcher.load_device)
        self._states = _states(self._device)

    @property
    def sigmas(self) -> Tensor:
        """The noise levels [steps + 1] of the run."""
        return self._args[_SIGMAS] if len(self._args) > _SIGMAS else self._kwargs["sigmas"]

    def again(self) -> tuple[tuple, dict[str, Any]]:
        """Set guider and generators as they were; returns arguments for one more run."""
        if self._conds is not None:
            self._guider.conds = _listed(self._conds)
        for module, state in self._states:
            module.set_rng_state(state, *([self._device] if module is torch.cuda else []))
        return _copied(self._args, self._kwargs)

    def leave(self) -> None:
        """A run was left before its end: release what the host releases there."""
        loaded = getattr(self._guider, "loaded_models", None)
        if loaded is not None:
            cleanup_models(self._guider.conds, loaded)


def _states(device: torch.device) -> list[tuple[Any, Tensor]]:
    """Who draws random numbers for a sampler on this device, and the states of their generators."""
    own = {"cuda": torch.cuda, "mps": torch.mps}.get(device.type)
    states = [(torch.random, torch.random.get_rng_state())]
    return states if own is None else [*states, (own, own.get_rng_state(*([device] if own is torch.cuda else [])))]


def _copied(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple, dict[str, Any]]:
    def copied(value: Any) -> Any:
        return value.clone() if isinstance(value, Tensor) else value

    return tuple(map(copied, args)), {name: copied(value) for name, value in kwargs.items()}


def _listed(conds: Mapping[str, Sequence[dict]]) -> dict[str, list[dict]]:
    """Lists of conditionings that may be changed without changing these."""
    return {name: [dict(cond) for cond in each] for name, each in conds.items()}
