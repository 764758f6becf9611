"""Runs the real ComfyUI server as a child process that never outlives its owner."""

from __future__ import annotations

import atexit
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from .base import alive, model_paths, prepare_base, temporary_base
from .errors import ServerError
from .install import Host, installed
from .paths import HOME, ROOT

START_SECONDS = 300.0  # about 7 s on an idle machine
STOP_SECONDS = 3.0
LOG_LINES = 30
KEPT_LOGS = 20
ADDRESS = "127.0.0.1"

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
_numbers = itertools.count(1)
_direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never ask a proxy for this machine


class ComfyServer:
    """A ComfyUI server for the time of a `with` block (or between `start` and `stop`).

    `port` None picks a free one. `base` None makes a base directory for this run only, which is removed at the end;
    otherwise `base` is prepared and kept. `pack` is the folder of the pack; `custom_nodes` are further files or
    packages to load beside it. The log stays in `.comfyui/logs/`. Start it from a thread that lives as long as the
    server should: on Linux it dies with it.
    """

    def __init__(
        self,
        *,
        port: int | None = None,
        base: Path | None = None,
        device: str = "--cpu",
        arguments: Sequence[str] = (),
        custom_nodes: Sequence[Path] = (),
        pack: Path = ROOT,
        host: Host | None = None,
        home: Path = HOME,
    ) -> None:
        self.host = host or installed()
        self.port = port
        self._fixed_port = port is not None
        self._given_base = base and base.resolve()
        self.base = base
        self._arguments = [*([device] if device else []), *arguments]
        self._custom_nodes = custom_nodes
        self._pack = pack
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self.log = home / "logs" / f"comfyui-{os.getpid()}-{next(_numbers)}.log"

    def __enter__(self) -> ComfyServer:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{ADDRESS}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process and self._process.poll() is None else None

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start it and return when it answers; ServerError (and nothing left running) when it does not."""
        self.base = self._given_base or temporary_base(self._home)
        prepare_base(self.base, self._custom_nodes, self._pack)
        atexit.register(self.stop)
        try:
            self._spawn()
            self._wait_until_ready(timeout)
            self._check_custom_nodes()
        except BaseException:
            self.stop()
            raise

    def check(self) -> None:
        """ServerError when the server is gone."""
        if self._process is None:
            raise ServerError("the ComfyUI server was stopped, or never started")
        code = self._process.poll()
        if code is not None:
            raise ServerError(f"the ComfyUI server ended by itself ({_meaning(code)}). {self.log_end()}")

    def log_lines(self) -> list[str]:
        """What the server said so far, without colours."""
        return _COLOURS.sub("", self.log.read_text(errors="replace")).splitlines()

    def log_end(self) -> str:
        """The log's path and last lines, for an error message."""
        return f"The end of {self.log}:\n" + "\n".join(f"    {line}" for line in self.log_lines()[-LOG_LINES:])

    def wait(self) -> None:
        """Return when the server has ended."""
        self._process.wait()

    def explain_loss(self) -> None:
        """After a lost connection: ServerError when that is because the server is dying or dead."""
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(2)
        self.check()

    def stop(self) -> None:
        """End it, politely first, and remove what was made for this run only. Stopping twice does no harm."""
        process, self._process = self._process, None
        try:
            if process is not None:
                _end(process)
        finally:
            if self.base is not None and self._given_base is None:
                shutil.rmtree(self.base, ignore_errors=True)
                self.base = None
            atexit.unregister(self.stop)

    def _spawn(self) -> None:
        self.port = _checked_port(self.port) if self._fixed_port else _free_port()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        remove_old_logs(self.log.parent)
        command = [
            str(self.host.python),
            str(Path(__file__).with_name("launch.py")),
            str(os.getpid()),
            str(self.host.tree / "main.py"),
            *("--listen", ADDRESS, "--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"),
            *("--base-directory", str(self.base), "--database-url", f"sqlite:///{self.base}/user/comfyui.db"),
            *model_paths(self.host, self.base),
            *self._arguments,
        ]
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base,
                env=server_environment(self.host),
                start_new_session=True,
            )

    def _wait_until_ready(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while time.monotonic() < end:
            if self._process.poll() is not None:
                code = self._process.returncode
                raise ServerError(f"ComfyUI did not start ({_meaning(code)}). {self.log_end()}")
            if self._answers():
                return
            time.sleep(0.1)
        raise ServerError(f"ComfyUI did not answer within {timeout:.0f} s. {self.log_end()}")

    def _check_custom_nodes(self) -> None:
        """ComfyUI goes on without custom nodes that fail; tests and the demo would then speak of unknown nodes."""
        lines = self.log_lines()
        if any("(IMPORT FAILED)" in line and str(self.base) in line for line in lines):
            why = [line for line in lines if str(self.base / "custom_nodes") in line and "seconds:" not in line]
            raise ServerError(f"custom nodes did not load (whole log: {self.log}):\n" + "\n".join(why))

    def _answers(self) -> bool:
        try:
            with _direct.open(f"{self.url}/system_stats", timeout=5) as answer:
                arguments = json.load(answer)["system"]["argv"]
        except (OSError, ValueError, http.client.HTTPException):
            return False
        return str(self.base) in arguments  # not somebody else's server that took the port meanwhile


def remove_old_logs(folder: Path) -> None:
    """Keep the newest KEPT_LOGS logs, and all whose owner still runs: its servers may."""
    for log in sorted(folder.glob("comfyui-*.log"), key=lambda file: file.stat().st_mtime)[:-KEPT_LOGS]:
        if not alive(int(log.stem.split("-")[1])):
            log.unlink(missing_ok=True)


def server_environment(host: Host) -> dict[str, str]:
    """Environment variables for a process that runs ComfyUI: one thread, nothing online, a user's tree untouched."""
    environ = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        environ.setdefault(name, "1")
    environ |= {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    if not host.pinned:
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
    return environ


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGINT)
            process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also what it started itself, and also when a second Ctrl-C ends the waiting
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return probe.getsockname()[1]


def _checked_port(port: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            raise ServerError(
                f"port {port} cannot be used ({error}): choose another one, or end what uses it"
            ) from error
    return port


def _meaning(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
