"""A browser in short: it hears of pauses by websocket, answers them, and can go and come back."""

from __future__ import annotations

import base64
import io
import json
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import requests
import websocket
from PIL import Image

from tests.tools.comfyui.server import ComfyServer

PAUSE, CLOSED = "explainable_latents.pause", "explainable_latents.pause_closed"
HERE, ANSWER = "/explainable_latents/pauses/here", "/explainable_latents/pauses/{}"
SECONDS = 60  # at most, for what should come at once


def levels(url: str) -> np.ndarray:
    """The picture of a data URL."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))))


def png(grey: np.ndarray) -> bytes:
    """8-bit grey values [h,w] as a file."""
    buffer = io.BytesIO()
    Image.fromarray(grey).save(buffer, format="PNG")
    return buffer.getvalue()


class AnsweringBrowser:
    """A client of one server. client: its id, for a second one that takes over, or that others pretend to be.

    user: of a server with --multi-user.
    """

    def __init__(self, server: ComfyServer, client: str | None = None, user: str | None = None) -> None:
        self.client = client or uuid.uuid4().hex
        self.received: list[tuple[str, dict[str, Any]]] = []
        self._url = server.url
        self._http = requests.Session()
        self._http.trust_env = False  # never through a proxy
        self._http.headers.update({"Comfy-User": user} if user else {})
        self._socket: websocket.WebSocket | None = None
        self.connect()

    def __enter__(self) -> AnsweringBrowser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()
        self._http.close()

    def connect(self) -> None:
        """Open the websocket; the server's first message says that it knows of it."""
        address = f"{self._url.replace('http', 'ws', 1)}/ws?clientId={self.client}"
        self._socket = websocket.create_connection(address, timeout=SECONDS, http_no_proxy=["*"])
        self.wait_for("status")

    def disconnect(self) -> None:
        """Close it, as a browser does that is closed or loaded again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def announce(self) -> dict[str, Any]:
        """Say that this browser can show pauses."""
        return self.post(HERE, json={"client_id": self.client}).json()

    def post(self, path: str, **content: Any) -> requests.Response:
        """Send a request."""
        return self._http.post(self._url + path, timeout=SECONDS, **content)

    def get(self, path: str) -> bytes:
        """What the server has there."""
        answer = self._http.get(self._url + path, timeout=SECONDS)
        assert answer.ok, f"{path}: {answer.status_code}"
        return answer.content

    def queue(self, graph: Mapping[str, Any], client: str | None = None, workflow: object = None) -> str:
        """Queue a graph, as another client if one is named ("" for none); returns the id of the run.

        workflow: what images that are saved get with them.
        """
        named = {"client_id": client if client is not None else self.client} if client != "" else {}
        extra = {} if workflow is None else {"extra_data": {"extra_pnginfo": {"workflow": workflow}}}
        answer = self.post("/prompt", json={"prompt": graph, **named, **extra})
        assert answer.ok, answer.text
        assert not answer.json().get("node_errors"), answer.text
        return answer.json()["prompt_id"]

    def next_message(self) -> tuple[str, dict[str, Any]]:
        """The next message of any kind."""
        before = len(self.received)
        while len(self.received) == before:
            self._next("")
        return self.received[-1]

    def wait_for(self, kind: str, fits: Callable[[dict[str, Any]], bool] = lambda data: True) -> dict[str, Any]:
        """The next message of this kind that fits; all that came before it are in `received`."""
        while True:
            found = self._next(kind)
            if found is not None and fits(found):
                return found

    def pause(self) -> dict[str, Any]:
        """The next pause."""
        return self.wait_for(PAUSE)

    def closed(self) -> str:
        """Why the next pause that is over is."""
        return self.wait_for(CLOSED)["reason"]

    def answer(
        self,
        pause: Mapping[str, Any],
        action: str,
        masks: Sequence[np.ndarray | bytes] = (),
        values: Mapping[str, float] | str | None = None,
        **other: Any,
    ) -> requests.Response:
        """Answer a pause. other: fields that have other values than they should; None leaves a field out."""
        text = values if isinstance(values, str) else None if values is None else json.dumps(values)
        own = {"client": self.client, "token": pause["token"], "revision": str(pause["revision"]), "action": action}
        fields = {**own, "values": text, **other}
        parts = [(name, (None, value)) for name, value in fields.items() if value is not None]
        files = [mask if isinstance(mask, bytes) else png(mask) for mask in masks]
        parts += [("mask", (f"{i}.png", data, "image/png")) for i, data in enumerate(files)]
        return self.post(ANSWER.format(pause["id"]), files=parts)

    def done(self, prompt_id: str) -> str:
        """Wait until a run is in the history; returns how it ended: "success", "error" or "interrupted"."""
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            entry = json.loads(self.get(f"/history/{prompt_id}")).get(prompt_id)
            if entry is not None:
                kinds = [kind for kind, _ in entry["status"]["messages"]]
                ended = [kind for kind in kinds if kind in ("execution_error", "execution_interrupted")]
                return ended[0].removeprefix("execution_") if ended else "success"
            time.sleep(0.02)
        raise TimeoutError(f"run {prompt_id} has not ended")

    def outputs(self, prompt_id: str) -> dict[str, Any]:
        """What a run's nodes showed, by node id."""
        return json.loads(self.get(f"/history/{prompt_id}"))[prompt_id]["outputs"]

    def _next(self, kind: str) -> dict[str, Any] | None:
        message = self._socket.recv()
        if not isinstance(message, str):
            return None  # a preview
        body = json.loads(message)
        self.received.append((body["type"], body["data"]))
        return body["data"] if body["type"] == kind else None
