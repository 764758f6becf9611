"""The server's life and death: no process and no port is left behind, and the reason is always told."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.tools.comfyui.client import ComfyClient, Progress
from tests.tools.comfyui.errors import ServerError
from tests.tools.comfyui.install import install, installed
from tests.tools.comfyui.paths import ROOT
from tests.tools.comfyui.server import ComfyServer
from tests.tools.foreground import foreground
from tests.tools.thorough import THOROUGH
from tests.workflows.conftest import SERVER_NODES

pytestmark = THOROUGH  # of tools that start servers: minutes

SLOW = {"slow": {"class_type": "TestSlow", "inputs": {"steps": 20_000, "seed": 0}}}  # 400 s
USERS_OWN = {"models", "custom_nodes", "output", "input", "user", "temp", "venv", ".venv", ".git"}


def gone(pid: int, seconds: float = 10.0) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Command:
    """A command of this repository as a child process, started as from a terminal, and the server under it."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            foreground(*arguments),
            cwd=ROOT,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def server_pid(self) -> int:
        """The server's process id, as soon as there is one."""
        end = time.monotonic() + 30
        while time.monotonic() < end and self.process.poll() is None:
            for child in psutil.Process(self.process.pid).children():
                if "main.py" in " ".join(child.cmdline()):
                    return child.pid
            time.sleep(0.02)
        raise AssertionError(f"no server: {self.process.communicate()}")

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal; returns the exit code and what was said on stderr."""
        self.process.send_signal(number)
        _, errors = self.process.communicate(timeout=30)
        return self.process.returncode, errors


def serve(port: int) -> Command:
    return Command("-m", "tests.tools.comfyui", "serve", "--port", str(port))


def test_a_taken_port_is_a_clear_error(server: ComfyServer):
    with pytest.raises(ServerError, match=f"port {server.port} cannot be used .*choose another one"):
        ComfyServer(port=server.port).start()
    done = subprocess.run(
        [sys.executable, "-m", "tests.tools.comfyui", "serve", "--port", str(server.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"error: port {server.port} cannot be used" in done.stderr


def test_a_server_that_dies_at_start_shows_its_log():
    server = ComfyServer(arguments=["--no-such-flag"])
    with pytest.raises(ServerError, match=r"did not start \(exit code 2\)") as caught:
        server.start()
    assert "unrecognized arguments: --no-such-flag" in str(caught.value)
    assert str(server.log) in str(caught.value)
    assert server.pid is None
    assert server.base is None


def test_custom_nodes_that_do_not_load_are_an_error(tmp_path: Path):
    broken = tmp_path / "broken_nodes.py"
    broken.write_text("import no_such_module")
    server = ComfyServer(custom_nodes=[broken])
    with pytest.raises(ServerError, match="custom nodes did not load") as caught:
        server.start()
    assert "broken_nodes" in str(caught.value)
    assert "No module named 'no_such_module'" in str(caught.value)
    assert server.pid is None


def test_a_server_that_does_not_answer_in_time_is_ended():
    server = ComfyServer()
    with pytest.raises(ServerError, match="did not answer within 1 s"):
        server.start(timeout=1)
    assert server.pid is None
    assert can_bind(server.port)


def test_a_server_killed_half_way_is_reported_at_once():
    with ComfyServer(custom_nodes=[SERVER_NODES]) as server, ComfyClient(server) as client:
        base, killed = server.base, []

        def kill(progress: Progress) -> None:
            os.kill(server.pid, signal.SIGKILL)
            killed.append(time.monotonic())

        with pytest.raises(ServerError, match=r"ended by itself \(killed by SIGKILL\)") as caught:
            client.run(SLOW, kill)
        assert time.monotonic() - killed[0] < 60  # the run itself takes 400 s
        assert "got prompt" in str(caught.value)
        with pytest.raises(ServerError, match="ended by itself"):
            client.run(SLOW)
    assert not base.exists()


RUN_SLOW = f"""
from pathlib import Path
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.command import run_main
from tests.tools.comfyui.server import ComfyServer
from tests.tools.foreground import foreground

def main():
    with ComfyServer(custom_nodes=[Path({str(SERVER_NODES)!r})]) as server, ComfyClient(server) as client:
        client.run({SLOW}, lambda progress: print(server.base, flush=True))

run_main(main)
"""


def test_ctrl_c_while_a_graph_runs_leaves_nothing_behind():
    command = Command("-c", RUN_SLOW)
    base = Path(command.process.stdout.readline().strip())
    pid, started = command.server_pid(), time.monotonic()
    assert command.end(signal.SIGINT) == (130, "interrupted\n")
    assert time.monotonic() - started < 60  # the run itself takes 400 s
    assert gone(pid)
    assert base.parent.is_dir()
    assert not base.exists()


def test_ctrl_c_ends_serve_and_frees_its_port():
    port = free_port()
    command = serve(port)
    assert f"http://127.0.0.1:{port}" in command.process.stdout.readline()
    pid = command.server_pid()
    assert not can_bind(port)
    assert command.end(signal.SIGINT) == (130, "interrupted\n")
    assert gone(pid)
    assert can_bind(port)


@pytest.mark.parametrize("seconds", [0, 2])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_ending_the_owner_while_the_server_starts_leaves_nothing_behind(number: int, code: int, seconds: float):
    command = serve(free_port())
    pid = command.server_pid()
    time.sleep(seconds)
    assert command.end(number)[0] == code
    assert gone(pid)


def test_leaving_the_block_ends_a_busy_server():
    with ComfyServer(custom_nodes=[SERVER_NODES]) as server, ComfyClient(server) as client:
        client.queue(SLOW)
        pid, started = server.pid, time.monotonic()
    assert time.monotonic() - started < 60  # the run itself takes 400 s
    assert gone(pid)
    with pytest.raises(ServerError, match="was stopped"):
        server.check()


def test_a_users_comfyui_runs_and_is_not_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    tree = tmp_path / "UsersComfyUI"
    (tree / "user").mkdir(parents=True)
    for entry in installed().tree.iterdir():
        if entry.is_dir() and entry.name not in USERS_OWN:
            shutil.copytree(entry, tree / entry.name, ignore=shutil.ignore_patterns("__pycache__"))
        elif entry.is_file():
            shutil.copy(entry, tree)
    weights = tree / "models" / "checkpoints" / "users.safetensors"
    weights.parent.mkdir(parents=True)
    weights.touch()
    before = {path: path.lstat().st_mtime_ns for path in tree.rglob("*")}
    host = install({"COMFYUI_PATH": str(tree), "COMFYUI_PYTHON": str(installed().python)})
    with ComfyServer(host=host) as server, ComfyClient(server) as client:
        program = Path(client.stats()["system"]["argv"][0])
        choices = client.object_info("CheckpointLoaderSimple")["input"]["required"]["ckpt_name"]
        assert [name for name in client.object_info() if name.startswith("EL")]
    assert program == tree / "main.py"
    assert "users.safetensors" in str(choices)
    assert {path: path.lstat().st_mtime_ns for path in tree.rglob("*")} == before
