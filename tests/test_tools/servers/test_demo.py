"""`make demo` when things go wrong: a message, an exit code, nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image

from tests.tools import demo
from tests.tools.comfyui.paths import ROOT
from tests.tools.foreground import foreground
from tests.tools.thorough import THOROUGH

pytestmark = THOROUGH  # of tools that start servers: minutes


Demo = Callable[..., subprocess.Popen]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Demo]:
    """Start the demo as `make demo` does; whatever is left of it is ended after the test."""
    started: list[subprocess.Popen] = []

    def run(*arguments: str) -> subprocess.Popen:
        command = foreground("-m", "tests.tools.demo", "--out", str(tmp_path / "out"), *arguments)
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


def server_of(process: subprocess.Popen, seconds: float = 120) -> psutil.Process:
    """The demo's ComfyUI, once it has started to work on a case."""
    end, found = time.monotonic() + seconds, []
    while time.monotonic() < end:
        with contextlib.suppress(psutil.NoSuchProcess):  # a child that ended meanwhile, so look again
            found = [
                c for c in psutil.Process(process.pid).children(recursive=True) if "main.py" in " ".join(c.cmdline())
            ]
        if found and any(c.status == psutil.CONN_ESTABLISHED for c in found[0].net_connections()):
            return found[0]
        time.sleep(0.2)
    raise AssertionError("the demo's server did not come up")


def finish(process: subprocess.Popen) -> str:
    return process.communicate(timeout=120)[0]


def test_a_taken_port_is_named(start):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start("--port", str(port))
        assert str(port) in finish(process)
    assert process.returncode == 1


def test_a_folder_that_cannot_be_written_is_named(start, tmp_path):
    (tmp_path / "file").write_text("in the way")
    process = start("--out", str(tmp_path / "file" / "out"))
    assert str(tmp_path / "file" / "out") in finish(process)
    assert process.returncode == 1


def test_a_server_that_is_killed_half_way_is_told_and_no_sheet_is_taken_for_a_result(start, tmp_path):
    process = start()
    server_of(process).kill()
    output = finish(process)
    assert process.returncode == 1
    assert "error:" in output
    assert ".log" in output
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_demo_leaves_no_process_and_no_sheet(start, tmp_path, number, code):
    process = start()
    server = server_of(process)
    os.kill(process.pid, number)
    finish(process)
    assert process.returncode == code
    assert not server.is_running() or server.status() == psutil.STATUS_ZOMBIE
    assert not list((tmp_path / "out").glob("*"))


def test_a_missing_checkpoint_is_named_with_the_way_to_get_it(monkeypatch, tmp_path):
    from tests.tools.comfyui import paths

    monkeypatch.setattr(paths, "TOY_CHECKPOINT", tmp_path / "toy.safetensors")
    monkeypatch.setattr(sys, "argv", ["demo", "--out", str(tmp_path / "out")])
    with pytest.raises(FileNotFoundError, match="make toy"):
        demo.main()


def test_the_demo_makes_a_contact_sheet_and_a_table(start, tmp_path):
    process = start()
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output
    assert f"contact sheet: {tmp_path / 'out' / 'contact_sheet.png'}" in output
    assert output.count(" dB |") >= len(demo.CASES)
    sheet = Image.open(tmp_path / "out" / "contact_sheet.png")
    assert sheet.width > sheet.height / 2
