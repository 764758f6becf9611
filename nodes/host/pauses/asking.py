"""What the sampler's thread does: ask the user who queued the run, if there is one who can answer, and wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from comfy.model_management import InterruptProcessingException, throw_exception_if_processing_interrupted

from ..ui.running_node import Listener, listener
from .answers import Answer
from .messages import (
    ACTIONS,
    BACK,
    CANCEL,
    CONTINUE,
    END,
    ERROR,
    LEFT,
    PAUSE,
    PAUSE_CLOSED,
    SHOW,
    TIMEOUT,
    UNSEEN,
    Value,
)
from .pause import Clock, Limit, Pause
from .registry import PAUSES, Registry

POLL = 0.25  # seconds between two looks at the host's cancel and at the connection
NOBODY = "nobody"
_TEXTS = {
    NOBODY: "nobody was there to be asked, the run went on",
    CONTINUE: "the user let the run go on",
    END: "the user ended the run here",
    UNSEEN: "no browser showed the pause, the run went on",
    LEFT: "the browser was closed, the run went on",
    TIMEOUT: "the time was over, the run went on",
}


@dataclass(frozen=True)
class Outcome:
    """How a pause ended after which the run goes on. reason: NOBODY, or one of `messages`. answer: of the user."""

    reason: str
    answer: Answer | None = None

    @property
    def text(self) -> str:
        """For the report."""
        return _TEXTS[self.reason]


def queued_by_one_who_answers() -> str:
    """The id of the run if the client that queued it is connected and shows pauses, else an empty text."""
    who = listener()
    return who.context.prompt_id if who is not None and PAUSES.is_here(who.client, who.connection()) else ""


@dataclass(frozen=True)
class Changes:
    """Values that may be changed at a pause.

    check: raises ValueError for values that are none in this run; the server's thread calls it. shown: the parts of the
    message that other values change.
    """

    check: Callable[[Mapping[str, Value]], None]
    shown: Callable[[Mapping[str, Value]], Mapping[str, Any]]


def ask(
    content: Callable[[], Mapping[str, Any]],
    limit: Limit,
    registry: Registry = PAUSES,
    clock: Clock | None = None,
    changes: Changes | None = None,
) -> Outcome:
    """Stop until the user has answered, or until nobody can be expected to.

    content: makes the message, without ids and times; it is called only if there is somebody to be asked. changes: what
    the user may try out meanwhile. Raises the host's exception when the run is cancelled, here or in the queue.
    """
    who = listener()
    if who is None or not registry.is_here(who.client, who.connection()):
        return Outcome(NOBODY)
    made = content()
    check = {"check": changes.check} if changes else {}
    lacking = {*(() if changes else (SHOW,)), *(() if made.get("stops") else (BACK,))}
    actions = [action for action in ACTIONS[made["kind"]] if action not in lacking]
    pause = Pause(who.client, {**made, "actions": actions, **who.ids()}, limit, clock, **check)
    registry.open(pause)
    try:
        _wait(pause, who, lambda: registry.is_here(who.client, who.connection()), changes)
    except InterruptProcessingException:
        pause.close(CANCEL)
        raise
    finally:
        pause.close(ERROR)
        registry.close(pause)
        who.send(PAUSE_CLOSED, pause.closing())
    if not pause.goes_on:
        raise InterruptProcessingException
    return Outcome(pause.reason, pause.answer)


def _wait(pause: Pause, who: Listener, connected: Callable[[], bool], changes: Changes | None) -> None:
    who.send(PAUSE, pause.message())
    while not pause.clock.wait(pause.over, POLL):
        throw_exception_if_processing_interrupted()
        again = pause.tick(connected())
        if changes and (wanted := pause.wanted()) is not None:
            again |= pause.show(changes.shown(wanted))
        if again:
            who.send(PAUSE, pause.message())
