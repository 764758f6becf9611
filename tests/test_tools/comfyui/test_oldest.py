"""The finder of the oldest promised Python, with programs that only say their version."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.comfyui.oldest import find_oldest, oldest_version
from tests.tools.comfyui.paths import ROOT

VERSION = oldest_version()


def python(path: Path, version: str = VERSION, code: int = 0) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\nprintf {version}\nexit {code}\n")
    path.chmod(0o755)
    return path


def test_the_path_comes_first_then_pyenv_then_uv(tmp_path: Path):
    environ = {"PATH": str(tmp_path / "bin"), "HOME": str(tmp_path)}
    assert find_oldest(environ) is None
    of_uv = python(tmp_path / f".local/share/uv/python/cpython-{VERSION}.9-linux/bin/python{VERSION}")
    assert find_oldest(environ) == of_uv
    of_pyenv = python(tmp_path / f".pyenv/versions/{VERSION}.2/bin/python")
    assert find_oldest(environ) == of_pyenv
    of_path = python(tmp_path / f"bin/python{VERSION}")
    assert find_oldest(environ) == of_path


@pytest.mark.parametrize(("version", "code"), [(VERSION, 127), ("3.99", 0)])
def test_one_that_does_not_run_or_is_another_is_passed_over(tmp_path: Path, version: str, code: int):
    shim = python(tmp_path / f"bin/python{VERSION}", version, code)
    environ = {"PATH": str(shim.parent), "HOME": str(tmp_path)}
    assert find_oldest(environ) is None


def test_a_machine_without_it_says_what_was_not_run(tmp_path: Path):
    environ = {
        **os.environ,
        "PATH": str(tmp_path),
        "HOME": str(tmp_path),
        "PYENV_ROOT": str(tmp_path),
        "UV_PYTHON_INSTALL_DIR": str(tmp_path),
    }
    command = [sys.executable, "-m", "tests.tools.comfyui", "oldest", "-c", "pass"]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "not run"), done.stderr
    assert f"no Python {VERSION}" in done.stdout
