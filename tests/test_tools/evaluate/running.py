"""The command on real servers, and what it leaves behind."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from tests.tools.comfyui.server import ComfyServer
from tests.tools.foreground import foreground
from tests.tools.workflows.graphs import ROOT

PATIENCE = 300.0
NOWHERE = "http://127.0.0.1:9"


def command(*arguments: object) -> list[str]:
    """The command as it is started from a terminal."""
    return foreground("-m", "tests.tools.evaluate", *map(str, arguments))


def evaluate(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(command(*arguments), capture_output=True, text=True, cwd=ROOT, timeout=PATIENCE, check=False)


def runs_of(server: ComfyServer) -> int:
    """How many runs a server has had."""
    return len(requests.get(f"{server.url}/history", timeout=60).json())


def pixels(out: Path) -> dict[str, np.ndarray]:
    """The pictures of a folder of results, by their path in it."""
    return {str(f.relative_to(out)): np.asarray(Image.open(f)) for f in sorted((out / "runs").rglob("*.png"))}


def table(out: Path) -> list[str]:
    """Every line of the table but the seconds."""
    kept, skip = [], False
    for line in (out / "table.md").read_text().splitlines():
        skip = "| seconds" in line or (skip and line.startswith("|  | median"))
        if not skip:
            kept.append(line)
    return kept


def wait_until_running(server: ComfyServer) -> None:
    """A run has begun on this server."""
    end = time.monotonic() + PATIENCE
    while not requests.get(f"{server.url}/queue", timeout=60).json()["queue_running"]:
        assert time.monotonic() < end
        time.sleep(0.05)
