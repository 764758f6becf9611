"""Workers on the machines of a Ray cluster. Ray is an optional extra; nothing else imports it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from threading import Event
from typing import Any

from ..comfyui.errors import HostError
from ..comfyui.paths import ROOT
from ..comfyui.server import ComfyServer
from .jobs import Order
from .workers import Failed, Lost, Made, ServerWorker, Stopped, Worker

POLL_SECONDS = 0.5


class RemoteWorker:
    """What runs in an actor: a worker with the server at `url`, or, without one, a server that it starts there."""

    def __init__(self, url: str | None, device: str, timeout: float) -> None:
        self._own = None if url else ComfyServer(device=device)
        if self._own:
            self._own.start()
        self._worker = ServerWorker(url or self._own, timeout)

    def name(self) -> str:
        """Machine and address."""
        return f"{os.uname().nodename} {self._worker.name}"

    def object_info(self) -> dict[str, Any]:
        """The node classes of the server."""
        return self._worker.object_info()

    def pids(self) -> tuple[int, int | None]:
        """Process ids of the actor and of its server."""
        return os.getpid(), self._own.pid if self._own else None

    def run(self, order: Order) -> Made | Failed | Lost:
        """Run one job."""
        return self._worker.run(order, Event())

    def close(self) -> None:
        """End the server that was started here."""
        self._worker.close()
        if self._own:
            self._own.stop()


class RayWorker:
    """A worker in an actor."""

    def __init__(self, actor: Any) -> None:
        import ray

        self._ray, self._actor = ray, actor
        try:
            self.name: str = ray.get(actor.name.remote())
        except ray.exceptions.RayError as error:
            raise HostError(f"a Ray worker did not start: {error}") from error

    def object_info(self) -> dict[str, Any]:
        """The node classes of its server."""
        return self._ray.get(self._actor.object_info.remote())

    def pids(self) -> tuple[int, int | None]:
        """Process ids of the actor and of its server."""
        return self._ray.get(self._actor.pids.remote())

    def run(self, order: Order, stop: Event) -> Made | Failed | Lost:
        """Run one job; raises Stopped, and ends the actor with its server, once `stop` is set."""
        running = self._actor.run.remote(order)
        while True:
            done, _ = self._ray.wait([running], timeout=POLL_SECONDS)
            if stop.is_set():
                self._ray.kill(self._actor)
                raise Stopped
            if done:
                break
        try:
            return self._ray.get(running)
        except self._ray.exceptions.RayActorError as error:
            return Lost(f"the Ray actor died: {str(error).splitlines()[0]}")

    def close(self) -> None:
        """End the actor."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            self._ray.get(self._actor.close.remote(), timeout=10)
        self._ray.kill(self._actor)


def ray_workers(address: str | None, urls: Sequence[str | None], device: str, timeout: float) -> list[Worker]:
    """One worker per address of a server; None starts a server on a machine of the cluster.

    address: of a running cluster, None for one of this machine alone. Every machine needs this repository at the same
    path, set up with `make host`. ValueError when Ray is not installed.
    """
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_worker_niceness"):  # before its import: nothing goes online
        os.environ.setdefault(name, "0")
    try:
        import ray
    except ModuleNotFoundError:
        raise ValueError("--ray needs the package ray: use `make evaluate-ray`, which sets it up") from None
    options = {"include_dashboard": False, "num_cpus": max(len(urls), 1)} if address is None else {}
    ray.init(address or "local", log_to_driver=False, logging_level="error", ignore_reinit_error=True, **options)
    gpus = 0 if device or any(urls) else 1
    environment = {"env_vars": {"PYTHONPATH": str(ROOT)}}
    where = {
        "num_cpus": 0 if any(urls) else 1,
        "num_gpus": gpus,
        "scheduling_strategy": "SPREAD",
        "runtime_env": environment,
    }
    actor = ray.remote(**where)(RemoteWorker)
    return [RayWorker(a) for a in [actor.remote(url, device, timeout) for url in urls]]
