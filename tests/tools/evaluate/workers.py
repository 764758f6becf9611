"""A worker runs one job after the other on one server and always says in words how it went."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import Event
from typing import Any, Protocol

import requests
import websocket
from PIL import Image

from ..comfyui.client import ComfyClient, Result
from ..comfyui.errors import ComfyError, HostError
from ..comfyui.server import ComfyServer
from .jobs import Order

ATTEMPTS = 2  # when a connection is lost and the server is there again


class Stopped(KeyboardInterrupt):
    """The user's Ctrl-C, passed on to a worker: the client cancels its run."""


@dataclass(frozen=True)
class Made:
    """The files that a run made, as the server sent them."""

    result: bytes = field(repr=False)
    masks: tuple[bytes, ...] = field(repr=False)
    seconds: float
    server: str
    comfyui: str


@dataclass(frozen=True)
class Failed:
    """The workflow failed; another server would not do better."""

    reason: str


@dataclass(frozen=True)
class Lost:
    """The server is gone; what it was asked for has to be made elsewhere."""

    reason: str


class Worker(Protocol):
    """Something that runs jobs."""

    name: str

    def run(self, order: Order, stop: Event) -> Made | Failed | Lost:
        """Run one job; raises Stopped once `stop` is set."""

    def object_info(self) -> dict[str, Any]:
        """The node classes of its server; HostError or OSError when it does not answer."""

    def close(self) -> None:
        """Let go of it."""


class ServerWorker:
    """Runs jobs on a server over HTTP: a ComfyServer of ours, or the address of any other."""

    def __init__(self, server: ComfyServer | str, timeout: float) -> None:
        self._server, self._timeout = server, timeout
        self._client = ComfyClient(server)
        self._uploaded: set[str] = set()
        self.name = self._client.url
        self._comfyui = ""

    def run(self, order: Order, stop: Event) -> Made | Failed | Lost:
        """Run one job."""

        def check() -> None:
            if stop.is_set():
                raise Stopped

        reason = ""
        for _ in range(ATTEMPTS):
            check()
            try:
                return self._attempt(order, check)
            except ComfyError as error:
                if error.node_id is not None:
                    return Failed(str(error))
                reason = str(error)
            except TimeoutError as error:
                if self._answers():  # the client has cancelled the run
                    return Failed(f"{error} ({self._timeout:g} s)")
                return Lost(str(error))
            except (HostError, requests.RequestException, websocket.WebSocketException, OSError) as error:
                reason = str(error)
            self._uploaded.clear()
            if not self._answers():
                return Lost(reason)
        return Failed(reason)

    def object_info(self) -> dict[str, Any]:
        """The node classes of its server."""
        return self._client.object_info()

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def _attempt(self, order: Order, check: Callable[[], None]) -> Made | Failed:
        if not self._comfyui:
            self._comfyui = self._client.stats()["system"]["comfyui_version"]
        if order.image_name not in self._uploaded:
            self._client.upload_image(order.image, order.image_name)
            self._uploaded.add(order.image_name)
        result = self._client.run(order.graph, timeout=self._timeout, on_wait=check)
        pictures = _pictures(result, order.result)
        if not pictures:
            return Failed(f"node {order.result} of the workflow showed no picture")
        sizes = [Image.open(io.BytesIO(data)).size for data in (order.image, pictures[0])]
        if sizes[0] != sizes[1]:
            told = [f"{width}×{height}" for width, height in sizes]
            return Failed(f"the result is {told[1]}, its reference {told[0]}: they cannot be compared")
        masks = _pictures(result, order.masks) if order.masks else ()
        return Made(pictures[0], masks, result.seconds, self.name, self._comfyui)

    def _answers(self) -> bool:
        with contextlib.suppress(HostError, requests.RequestException, websocket.WebSocketException, OSError):
            self._client.stats()
            return True
        return False


def _pictures(result: Result, node: str) -> tuple[bytes, ...]:
    return tuple(file.data for file in result.files.get(node, ()) if file.kind == "images")
