"""One run of a sampler function whose state is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..attention.model_call import aside
from ..attention.twin_blocks import TARGET, TwinBlocks, twin_blocks
from .intercepted_model import BeforeCall, InterceptedModel

if TYPE_CHECKING:
    from .changes import Change

# Calls the model on a state, or on the one that was announced.
Predict = Callable[..., Tensor]


@dataclass
class ChangedRun:
    """One run of a sampler function: what it is called with, apart from the state, and the changes of its state.

    entered: the steps whose changes have been made.
    """

    function: Callable
    model: Any
    sigmas: Tensor
    extra_args: dict
    callback: Callable | None
    disable: bool | None
    options: dict
    changes: tuple[Change, ...]
    entered: set[int] = field(default_factory=set)

    @property
    def total(self) -> int:
        """Number of steps; as a step, the finished latent."""
        return len(self.sigmas) - 1

    def sample(self, x: Tensor, before: BeforeCall | None = None, start: int = 0, **other: Any) -> Tensor:
        """Sample from state `x`, which enters step `start`. before: is called before every model call."""
        return self.function(
            self.model if before is None else InterceptedModel(self.model, before),
            x,
            self.sigmas[start:].clone(),  # some functions write into them
            **{
                "extra_args": dict(self.extra_args),
                "callback": self.callback,
                "disable": self.disable,
                **self.options,
                **other,
            },
        )

    def predict(self, x: Tensor, sigma: Tensor, arguments: dict) -> Tensor:
        """The model's prediction for state `x` at noise level `sigma`."""
        return self.model(x, sigma * x.new_ones(x.shape[0]), **arguments)

    def changed(self, step: int, x: Tensor, sigma: Tensor, arguments: dict | None = None) -> Tensor:
        """The state that enters `step` after all changes that fall on it. arguments: of the model call there."""
        self.entered.add(step)
        twin = twin_blocks(self.extra_args.get("model_options", {}))
        for change in self.changes:
            if step in change.steps:
                whole = twin is None or change.all_blocks
                predict = self._asked(x, sigma, aside(arguments or self.extra_args), None if whole else twin)
                if whole:
                    x = change(step, x, sigma, predict)
                else:
                    x = twin.with_blocks(x, {TARGET: change(step, x[twin.rows(TARGET)], sigma, predict)})
        return x

    def _asked(self, x: Tensor, sigma: Tensor, arguments: dict, twin: TwinBlocks | None) -> Predict:
        """What a change gets to call the model with, see `Change`. twin: where its state is one block of `x`."""

        def predict(state: Tensor | None = None) -> Tensor:
            if state is not None and twin is not None:
                state = twin.with_blocks(x, {TARGET: state})
            return self.predict(x if state is None else state, sigma, arguments)

        return predict

    def prepare(self, next_step: int | None) -> None:
        """Prepare the changes for a model call. next_step: the changed step that comes right after it, if any."""
        for change in self.changes:
            change.before_call(next_step in change.steps, not self.entered.issuperset(change.steps))

    def in_last_step(self, sigma: Tensor) -> bool:
        """Whether a model call at this noise level belongs to the last step of the run."""
        return float(sigma.flatten()[0]) <= float(self.sigmas[-2]) * (1 + 1e-3)
