"""A sampler that waits in its step callback, and what it shows and is answered there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from torch import Tensor

from ..attention.twin_blocks import TWIN_KEY
from ..pauses.asking import Changes
from ..pauses.messages import CONTINUE, END, STEP, Value
from ..pauses.records import Record
from .asker import Asker
from .live_prompt import installed_by_us
from .pause_content import pictures_and_maps
from .shown_call import ShownCall
from .staged_values import StagedValues


class SamplingEnded(Exception):
    """Raised out of a sampler's step callback to end it. x0: what the model predicted, which is the result."""

    def __init__(self, pausing: object, x0: Tensor) -> None:
        super().__init__()
        self.pausing = pausing
        self.x0 = x0


class RunWithPauses:
    """One sampler run.

    asker: gives and keeps the answers. levels: its noise levels. steps: before which it pauses. call: what is shown.
    """

    def __init__(
        self,
        asker: Asker,
        guider: Any,
        levels: list[float],
        steps: Collection[int],
        staged: StagedValues,
        call: ShownCall,
    ) -> None:
        self._asker = asker
        self._staged = staged
        self._call = call
        self._format = guider.inner_model.latent_format
        self._levels = levels
        self._left = set(steps)
        self._can_show = bool(staged.offered()) and TWIN_KEY not in installed_by_us(guider)

    def before_call(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> None:
        """The sampler makes this model call now."""
        self._staged.before_call(float(timestep.flatten()[0]))
        if self._left and self._can_show and self._asker.recorded is None:
            self._call.made(x, timestep, *args, **kwargs)

    def callback(self, given: Callable | None) -> Callable[..., None]:
        """The host's step callback `given`, after which the sampler may wait."""

        def after(step: int, x0: Tensor, *args: Any) -> None:
            if given is not None:
                given(step, x0, *args)
            if step + 1 in self._left:
                self._left.discard(step + 1)
                self._pause(step + 1, x0)

        return after

    def _pause(self, step: int, x0: Tensor) -> None:
        action, values, note = self._answered(step, x0)
        self._asker.note(step, note)
        changed = self._staged.stage(values, self._levels[step - 1], self._levels[step])
        if changed or action == END:
            self._asker.add(Record(step, action, values=changed))
        if action == END:
            raise SamplingEnded(self, x0.clone())

    def _answered(self, step: int, x0: Tensor) -> tuple[str, Mapping[str, Value], str]:
        """CONTINUE or END, the values that were chosen, and a note for the report."""
        if self._asker.recorded is None:
            changes = Changes(self._staged.check_words, self._shown) if self._can_show else None
            outcome = self._asker.ask(STEP, step, lambda: self._content(step, x0), changes)
            values = outcome.answer.values if outcome.answer else {}
            return END if outcome.reason == END else CONTINUE, values, outcome.text
        record = self._asker.recorded.get(step, {})
        self._staged.check(record.get("values", {}))
        note = "the recorded answer was used" if record else "no answer was recorded, the run went on"
        return record.get("action", CONTINUE), record.get("values", {}), note

    def _content(self, step: int, x0: Tensor) -> Mapping[str, Any]:
        about = {"steps": len(self._levels) - 1, "sigma": self._levels[step]}
        nothing = {"size": None, "found": [], "start": []}
        return {
            **about,
            **nothing,
            "values": self._staged.offered(),
            **pictures_and_maps(self._format, x0, self._call.maps()),
        }

    def _shown(self, values: Mapping[str, Value]) -> Mapping[str, Any]:
        """The parts of the message that other values change, by one model call."""
        with self._staged.trying(values) as text:
            predicted, maps = self._call.again(text)
        return {"values": self._staged.offered(values), **pictures_and_maps(self._format, predicted, maps)}
