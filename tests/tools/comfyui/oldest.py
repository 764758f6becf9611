"""Finds the oldest Python that the pack promises to run on, as pyenv, uv or the system installed it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import tomllib

from .paths import ROOT

# Makes environments, so that a Python without `venv` (as Debian splits it) counts as none.
_CHECK = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2], end='')"


def oldest_version() -> str:
    """The promise of pyproject.toml, "3.10"."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return project["requires-python"].removeprefix(">=")


def find_oldest(environ: Mapping[str, str] = os.environ) -> Path | None:
    """A Python of that version, or None when this machine has none."""
    version = oldest_version()
    return next((python for python in _candidates(environ, version) if _is(python, version)), None)


def _candidates(environ: Mapping[str, str], version: str) -> Iterator[Path]:
    found = shutil.which(f"python{version}", path=environ.get("PATH"))
    if found:
        yield Path(found)
    home = Path(environ.get("HOME", "/"))
    pyenv = Path(environ.get("PYENV_ROOT", home / ".pyenv"))
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    uv = Path(environ.get("UV_PYTHON_INSTALL_DIR", home / ".local/share/uv/python"))
    yield from sorted(uv.glob(f"cpython-{version}.*/bin/python{version}"))


def _is(python: Path, version: str) -> bool:
    done = subprocess.run([str(python), "-c", _CHECK], capture_output=True, text=True, check=False)
    return done.returncode == 0 and done.stdout == version
