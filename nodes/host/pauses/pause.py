"""One pause: its states, and what leads from one to the next. Plain Python, and the clock is given."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock
from typing import Any

from .messages import CANCEL, CONTINUE, LEFT, TIMEOUT, UNSEEN

SENT, SHOWN, ORPHANED, ANSWERED, CANCELLED, CLOSED = "sent", "shown", "orphaned", "answered", "cancelled", "closed"
OPEN = (SENT, SHOWN, ORPHANED)

# Seconds until a message that no browser has shown is sent once more, until it is given up, and until a browser that
# has gone is.
SEND_AGAIN, GIVE_UP, GRACE = 10.0, 30.0, 60.0


class Refused(Exception):
    """An answer that is not taken. status: the HTTP status that says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True)
class Clock:
    """Time in seconds, and waiting for an event for so many of them."""

    now: Callable[[], float] = time.monotonic
    wait: Callable[[Event, float], bool] = Event.wait


@dataclass(frozen=True)
class Limit:
    """How long to wait. seconds: None for as long as it takes. then: CONTINUE or CANCEL, when that time is over, or
    when a browser that has gone did not come back within the seconds of `grace`.
    """

    seconds: float | None
    then: str = CONTINUE
    grace: float = GRACE


class Pause:
    """A pause that was sent to one client. The sampler's thread and the server's may use it at the same time.

    content: of its message, except for what changes. id, token: 128 random bits each. state: one of `OPEN`, ANSWERED,
    CANCELLED or CLOSED. reason: why it is over, see `messages`. answer: what `settle` was given. over: set when it is.
    check: raises ValueError for values that are none in this run.
    """

    def __init__(
        self,
        client: str,
        content: Mapping[str, Any],
        limit: Limit,
        clock: Clock | None = None,
        check: Callable[[Mapping[str, Any]], None] = lambda values: None,
    ) -> None:
        self.client = client
        self.check_values = check
        self.clock = clock or Clock()
        self.id, self.token = secrets.token_hex(16), secrets.token_hex(16)
        self.state, self.revision = SENT, 0
        self.reason: str | None = None
        self.answer: Any = None
        self.over = Event()
        self._content = content
        self._wanted: Any = None
        self._limit = limit
        self._lock = Lock()
        self._started = self._sent = self.clock.now()
        self._sent_again = False
        self._lost = 0.0

    @property
    def left(self) -> float | None:
        """Seconds until the time is over; None without a limit."""
        seconds = self._limit.seconds
        return None if seconds is None else max(0.0, self._started + seconds - self.clock.now())

    def message(self) -> dict[str, Any]:
        """What is sent to the browser, see `messages`."""
        own = {"id": self.id, "token": self.token, "revision": self.revision}
        times = {
            "seconds": self._limit.seconds,
            "left": self.left,
            "then": self._limit.then,
            "grace": self._limit.grace,
        }
        return {**self._content, **own, **times}

    def closing(self) -> dict[str, Any]:
        """What is sent when it is over."""
        ids = {name: self._content.get(name) for name in ("run", "node", "workflow", "step")}
        return {**ids, "id": self.id, "reason": self.reason}

    def check(self, token: str, revision: int) -> None:
        """Raise Refused unless an answer with these may be given now."""
        with self._lock:
            self._check(token, revision)

    def seen(self, token: str, revision: int) -> None:
        """A browser shows it. Raises Refused as `check`."""
        with self._lock:
            self._check(token, revision)
            if self.state == SENT:
                self.state = SHOWN

    def more_time(self, token: str, revision: int) -> None:
        """Start the clock anew. Raises Refused as `check`."""
        with self._lock:
            self._check(token, revision)
            self._started = self.clock.now()

    def want(self, token: str, revision: int, values: Any) -> None:
        """It was asked to be shown with other values, which `wanted` gives. Raises Refused as `check`."""
        with self._lock:
            self._check(token, revision)
            self._wanted = values

    def wanted(self) -> Any:
        """The values that it was asked to be shown with since this was called last; None for no request."""
        with self._lock:
            values, self._wanted = self._wanted, None
            return values

    def show(self, content: Mapping[str, Any]) -> bool:
        """It has parts of another content now, and has to be sent again; False where it is over. See `shown_anew`."""
        with self._lock:
            self._content = {**self._content, **content}
        return self.shown_anew()

    def settle(self, token: str, revision: int, action: str, answer: Any = None) -> None:
        """End it: CONTINUE, END or CANCEL by the user. Raises Refused as `check`."""
        with self._lock:
            self._check(token, revision)
            self.answer = answer
            self._end(CANCELLED if action == CANCEL else ANSWERED, action)

    def shown_anew(self) -> bool:
        """Its client announced itself anew: it has to be sent again, and older answers count no more.

        False where it is over.
        """
        with self._lock:
            if self.state not in OPEN:
                return False
            self.revision += 1
            self._send()
            return True

    def tick(self, connected: bool) -> bool:
        """Let time pass. connected: whether its client could be reached now. Returns whether to send it once more."""
        with self._lock:
            now = self.clock.now()
            if self.state not in OPEN:
                return False
            if self._limit.seconds is not None and now >= self._started + self._limit.seconds:
                self._end(CLOSED, TIMEOUT)
            elif not connected and self.state != ORPHANED:
                self.state, self._lost = ORPHANED, now
            elif self.state == ORPHANED and now >= self._lost + self._limit.grace:
                self._end(CLOSED, LEFT)
            elif self.state == SENT and now >= self._sent + GIVE_UP:
                self._end(CLOSED, UNSEEN)
            elif self.state == SENT and now >= self._sent + SEND_AGAIN and not self._sent_again:
                self._sent_again = True
                return True
            return False

    def close(self, reason: str) -> None:
        """End it whatever its state, if it is not over yet."""
        with self._lock:
            if self.state in OPEN:
                self._end(CANCELLED if reason == CANCEL else CLOSED, reason)

    @property
    def goes_on(self) -> bool:
        """Once it is over: whether the run does."""
        return self.reason != CANCEL and (self.reason not in (LEFT, TIMEOUT) or self._limit.then == CONTINUE)

    def _check(self, token: str, revision: int) -> None:
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            raise Refused(403, "the token is not that of this pause")
        if self.state not in OPEN:
            raise Refused(409, "this pause was answered already, or is over")
        if revision != self.revision:
            raise Refused(409, "this pause was taken over elsewhere")

    def _send(self) -> None:
        self.state, self._sent, self._sent_again = SENT, self.clock.now(), False

    def _end(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason
        self.over.set()
