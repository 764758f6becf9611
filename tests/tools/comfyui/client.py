"""Talks to a running ComfyUI over HTTP and its websocket: queue a graph, follow it, get what it made."""

from __future__ import annotations

import contextlib
import io
import json
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import requests
import websocket
from PIL import Image

from .errors import ComfyError, HostError, Interrupted
from .server import ComfyServer

Graph = Mapping[str, Mapping[str, Any]]  # a workflow in API format: node id -> class_type and inputs
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Progress:
    """One step of a node that reports its progress."""

    node_id: str
    value: int
    maximum: int


@dataclass(frozen=True)
class File:
    """A file that a node made; `kind` is the name of its list in the node's output (images, latents ...)."""

    kind: str
    name: str
    data: bytes


@dataclass(frozen=True)
class Result:
    """What a run made, by node id; the files are already here, so it stays valid after the server is gone."""

    prompt_id: str
    seconds: float
    cached: tuple[str, ...]  # nodes that did not have to run again
    outputs: Mapping[str, Mapping[str, Any]]  # as ComfyUI reports them
    files: Mapping[str, tuple[File, ...]] = field(repr=False)

    def images(self, node_id: str) -> list[Image.Image]:
        """The pictures of one node, in batch order; KeyError when it made none."""
        found = [Image.open(io.BytesIO(f.data)) for f in self.files.get(node_id, ()) if f.kind == "images"]
        if not found:
            raise KeyError(f"node {node_id} made no images; these nodes made something: {sorted(self.outputs)}")
        return found

    def text(self, node_id: str) -> str:
        """The text that one node shows; KeyError when it shows none."""
        return "\n".join(self.outputs[node_id]["text"])


class ComfyClient:
    """A client of one server: a ComfyServer (whose death it notices and explains) or the address of any other."""

    def __init__(self, server: ComfyServer | str) -> None:
        self._server = server if isinstance(server, ComfyServer) else None
        self.url = (server.url if isinstance(server, ComfyServer) else server).rstrip("/")
        self._id = uuid.uuid4().hex
        self._http = requests.Session()
        self._http.trust_env = False  # never through a proxy
        self._socket: websocket.WebSocket | None = None

    def __enter__(self) -> ComfyClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._http.close()

    def stats(self) -> dict[str, Any]:
        """The server's versions, arguments and devices."""
        return self._get("/system_stats").json()

    def object_info(self, node_class: str | None = None) -> dict[str, Any]:
        """The description of one node class (KeyError when the server does not have it), or of all by name."""
        info = self._get("/object_info" + (f"/{node_class}" if node_class else "")).json()
        return info[node_class] if node_class else info

    def upload_image(self, image: Image.Image | Path | bytes, name: str = "image.png") -> str:
        """Put a picture into the server's input folder, over one of that name; returns the name for `LoadImage`."""
        if isinstance(image, Image.Image):
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            image = buffer.getvalue()
        data = image.read_bytes() if isinstance(image, Path) else image
        sent = self._post("/upload/image", files={"image": (name, data)}, data={"overwrite": "true"}).json()
        return "/".join(part for part in (sent["subfolder"], sent["name"]) if part)

    def interrupt(self) -> None:
        """Tell whatever runs now to stop."""
        self._post("/interrupt", json={})

    def cancel(self, prompt_id: str, timeout: float = 60.0) -> None:
        """Cancel one run, waiting or running, and return when it has left the queue.

        ComfyUI forgets an interrupt that comes between taking a run from the queue and beginning it, so it is told
        again until the run is gone; TimeoutError when a node does not let go within `timeout` seconds.
        """
        end = time.monotonic() + timeout
        self._post("/queue", json={"delete": [prompt_id]})
        while prompt_id in self.pending():
            if time.monotonic() > end:
                raise TimeoutError(f"run {prompt_id} did not stop within {timeout:g} s of being cancelled")
            self._post("/interrupt", json={"prompt_id": prompt_id})
            time.sleep(POLL_SECONDS / 10)

    def pending(self) -> tuple[str, ...]:
        """The ids of the runs that run or wait."""
        queue = self._get("/queue").json()
        return tuple(item[1] for item in queue["queue_running"] + queue["queue_pending"])

    def made(self, prompt_id: str) -> dict[str, Any]:
        """What the nodes of a run made, by node id, as ComfyUI reports it; nothing when the run did not take place."""
        return self._get(f"/history/{prompt_id}").json().get(prompt_id, {}).get("outputs", {})

    def queue(self, graph: Graph) -> str:
        """Queue a graph and return its prompt id; ComfyError, with the nodes, when ComfyUI refuses any part of it."""
        self._connect()
        answer = self._request("POST", "/prompt", json={"prompt": graph, "client_id": self._id})
        with contextlib.suppress(json.JSONDecodeError):
            body = answer.json()
            if answer.ok and body.get("node_errors"):  # ComfyUI would run the rest of the graph
                self.cancel(body["prompt_id"])
            if not answer.ok or body.get("node_errors"):
                raise _refusal(body)
            return body["prompt_id"]
        raise ComfyError(f"ComfyUI answered {answer.status_code} to a graph: {answer.text[:500]}")

    def run(
        self,
        graph: Graph,
        on_progress: Callable[[Progress], None] | None = None,
        timeout: float = 600.0,
        on_wait: Callable[[], None] | None = None,
    ) -> Result:
        """Queue a graph, follow it to its end and fetch what it made.

        Raises ComfyError when a node fails (its id, class and message), Interrupted when it is cancelled, TimeoutError
        after `timeout` seconds, ServerError when the server dies meanwhile. A run that is given up is cancelled, also
        by a KeyboardInterrupt from `on_wait`, which is called at least every second.
        """
        start = time.monotonic()
        prompt_id = self.queue(graph)
        try:
            cached = self._follow(
                prompt_id, on_progress or (lambda progress: None), start + timeout, on_wait or (lambda: None)
            )
        except (KeyboardInterrupt, SystemExit, TimeoutError):
            with contextlib.suppress(HostError, requests.RequestException, TimeoutError):  # the first error tells more
                self.cancel(prompt_id)
            raise
        seconds = time.monotonic() - start
        outputs = self.made(prompt_id)
        return Result(prompt_id, seconds, cached, outputs, {node: self._fetch(o) for node, o in outputs.items()})

    def _follow(
        self, prompt_id: str, on_progress: Callable[[Progress], None], end: float, on_wait: Callable[[], None]
    ) -> tuple[str, ...]:
        cached: tuple[str, ...] = ()
        failure: ComfyError | None = None
        while True:
            kind, data = self._receive(end, on_wait)
            if data.get("prompt_id") != prompt_id:
                continue
            if kind == "progress":
                on_progress(Progress(data["node"], int(data["value"]), int(data["max"])))
            elif kind == "execution_cached":
                cached = tuple(data["nodes"])
            elif kind == "execution_error":
                failure = _failure(data)
            elif kind == "execution_interrupted":
                failure = Interrupted("the run was cancelled", data.get("node_id"), data.get("node_type"))
            elif kind == "executing" and data["node"] is None:  # sent last, when the history is written
                if failure:
                    raise failure
                return cached

    def _receive(self, end: float, on_wait: Callable[[], None]) -> tuple[str, dict[str, Any]]:
        """The next JSON message; previews are skipped."""
        while True:
            on_wait()
            if time.monotonic() > end:
                raise TimeoutError("the run took too long and was cancelled")
            with self._explained(), contextlib.suppress(websocket.WebSocketTimeoutException):
                message = self._socket.recv()
                if isinstance(message, str) and message:
                    body = json.loads(message)
                    return body["type"], body["data"]
                if message == "":
                    raise websocket.WebSocketConnectionClosedException("closed by the server")
            if self._server:
                self._server.check()

    def _connect(self) -> None:
        if self._socket is None:
            with self._explained():
                address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self._id}"
                self._socket = websocket.create_connection(address, timeout=POLL_SECONDS * 20, http_no_proxy=["*"])
                self._socket.settimeout(POLL_SECONDS)

    def _fetch(self, output: Mapping[str, Any]) -> tuple[File, ...]:
        wanted = [
            (kind, item)
            for kind, items in output.items()
            if isinstance(items, list)
            for item in items
            if isinstance(item, dict) and "filename" in item
        ]
        return tuple(
            File(
                kind,
                item["filename"],
                self._get("/view", params={k: item.get(k, "") for k in ("filename", "subfolder", "type")}).content,
            )
            for kind, item in wanted
        )

    def _get(self, path: str, **options: Any) -> requests.Response:
        return _checked(self._request("GET", path, **options))

    def _post(self, path: str, **options: Any) -> requests.Response:
        return _checked(self._request("POST", path, **options))

    def _request(self, method: str, path: str, **options: Any) -> requests.Response:
        with self._explained():
            return self._http.request(method, self.url + path, timeout=60, **options)

    @contextlib.contextmanager
    def _explained(self) -> Any:
        """Turn a lost connection into the reason for it."""
        try:
            yield
        except (requests.ConnectionError, websocket.WebSocketConnectionClosedException, ConnectionError) as error:
            self.close()
            if self._server:
                self._server.explain_loss()
            raise ComfyError(
                f"no connection to ComfyUI at {self.url} (not running, or it went away): {error}"
            ) from error


def _checked(answer: requests.Response) -> requests.Response:
    if not answer.ok:
        raise ComfyError(f"ComfyUI answered {answer.status_code} to {answer.url}: {answer.text[:500]}")
    return answer


def _refusal(body: Mapping[str, Any]) -> ComfyError:
    """The answer to a graph that does not validate, in words."""
    lines, first = [], (None, None)
    for node_id, problem in body.get("node_errors", {}).items():
        node_class = problem.get("class_type", "?")
        first = first if first[0] else (node_id, node_class)
        for error in problem["errors"]:
            lines.append(
                f"  node {node_id} ({node_class}): {error['message']}: {error.get('details', '')}".rstrip(": ")
            )
    if not lines:
        error = body.get("error", body)
        lines = [f"  {error.get('message')} {error.get('details', '')}" if isinstance(error, dict) else f"  {error}"]
    return ComfyError("ComfyUI refuses the graph:\n" + "\n".join(lines), *first)


def _failure(data: Mapping[str, Any]) -> ComfyError:
    node_id, node_class = data.get("node_id"), data.get("node_type")
    message = f"node {node_id} ({node_class}) failed: {data.get('exception_type')}: {data.get('exception_message')}"
    return ComfyError(message.strip(), node_id, node_class)
