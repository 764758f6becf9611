"""A clock that stands still until somebody waits, and does then what was planned for that time."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event

from explainable_latents.nodes.host.pauses.pause import Clock


class Planned:
    """Time from 0 in seconds. plan: second -> what happens then, while something is waited for."""

    def __init__(self, plan: dict[float, Callable[[], object]] | None = None) -> None:
        self.time = 0.0
        self.plan = dict(plan or {})
        self.clock = Clock(lambda: self.time, self.wait)

    def wait(self, event: Event, seconds: float) -> bool:
        """As `Event.wait`: until the event is set, by what happens meanwhile, or the seconds are over."""
        end = self.time + seconds
        for when in sorted(self.plan):
            if when <= end and not event.is_set():
                self.time = max(self.time, when)
                self.plan.pop(when)()
        if not event.is_set():
            self.time = end
        return event.is_set()
