"""All pauses that are open, by their id, and which clients can show them. Plain Python, without the server."""

from __future__ import annotations

from collections import deque
from threading import Lock
from typing import Any
from weakref import WeakValueDictionary

from .pause import Pause, Refused

MOST_REMEMBERED = 100  # pauses that are over
ONLY_USER = "default"  # as ComfyUI calls the user of a server without --multi-user


class Registry:
    """The pauses of all runs, and the connections that were announced. Any thread may use it."""

    def __init__(self) -> None:
        self._open: dict[str, Pause] = {}
        self._over: deque[tuple[str, str]] = deque(maxlen=MOST_REMEMBERED)  # id, client
        self._here: WeakValueDictionary[str, Any] = WeakValueDictionary()  # client -> its connection
        self._users: dict[str, str] = {}  # client -> who announced it
        self._lock = Lock()

    def announce(self, client: str, connection: Any, user: str = ONLY_USER) -> list[Pause]:
        """A client can show pauses on this connection, a websocket. Returns those that have to be sent to it again.

        user: of ComfyUI, who alone may answer its pauses. Raises Refused where a pause waits for another user of it.
        """
        with self._lock:
            own = [pause for pause in self._open.values() if pause.client == client]
            if own and self._users.get(client, ONLY_USER) != user:
                raise Refused(403, "a run of another user waits for this client")
            self._here[client] = connection
            kept = {*self._here, *(pause.client for pause in self._open.values())}
            self._users = {each: whose for each, whose in self._users.items() if each in kept} | {client: user}
        return [pause for pause in own if pause.shown_anew()]

    def is_here(self, client: str, connection: Any) -> bool:
        """Whether the client announced itself on this very connection; None is no connection."""
        with self._lock:
            return connection is not None and self._here.get(client) is connection

    def open(self, pause: Pause) -> None:
        """A pause begins."""
        with self._lock:
            self._open[pause.id] = pause

    def close(self, pause: Pause) -> None:
        """It is over: nothing of it is kept but that there was one."""
        with self._lock:
            if self._open.pop(pause.id, None) is not None:
                self._over.append((pause.id, pause.client))

    def find(self, pause_id: str, client: str | None = None, user: str = ONLY_USER) -> Pause:
        """The open pause of this id. client: whose it has to be, None for anybody's; user: who announced that client.

        Raises Refused where there is none, or another client's or user's, and where it is over.
        """
        with self._lock:
            pause = self._open.get(pause_id)
            over = [whose for each, whose in self._over if each == pause_id]
            is_theirs = self._users.get(client or "", ONLY_USER) == user
        if pause is not None and (client is None or (client == pause.client and is_theirs)):
            return pause
        if pause is None and over and client in (None, *over):
            raise Refused(409, "this pause was answered already, or is over")
        raise Refused(404, "there is no such pause")

    def __len__(self) -> int:
        """How many are open."""
        return len(self._open)


# Those of this process.
PAUSES = Registry()
