"""The table of `make test-hosts` says what happened, and its exit code whether that is good."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.comfyui import hosts
from tests.tools.comfyui.install import PINS, TORCH, VERSION, plan
from tests.tools.comfyui.paths import ROOT

TESTS = """
import os
def test_which_comfyui(): assert os.environ["COMFYUI_VERSION"] == "{version}"
def test_bad(): assert {passes}
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.tools.comfyui.hosts", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("passes", "row", "code"), [(True, "| 2 | 0 |", 0), (False, "| 1 | 1 |", 1)])
def test_counts_and_exit_code(tmp_path: Path, passes: bool, row: str, code: int):
    file = tmp_path / "test_given.py"
    file.write_text(TESTS.format(version=VERSION, passes=passes))
    done = run(VERSION, "--", str(file))
    assert done.returncode == code, done.stdout + done.stderr
    assert f"| {VERSION} {row}" in done.stdout
    # The folder of a test comes before its name where pytest finds one above both that folder and the repository.
    failed = re.findall(rf"^failed on {re.escape(VERSION)}: \S*test_given::test_bad$", done.stdout, re.MULTILINE)
    assert len(failed) == (not passes)


def test_a_run_without_any_test_is_not_good():
    done = run(VERSION, "--", "no/such/test.py")
    assert done.returncode == 1
    assert f"no test ran on {VERSION}" in done.stdout


def test_an_unknown_version_is_named_with_those_there_are():
    done = run("0.1.2")
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: COMFYUI_VERSION=0.1.2 is none of {', '.join(PINS)}; set COMFYUI_PATH")


def test_older_versions_share_the_torch_of_the_newest_and_nothing_else(tmp_path: Path):
    newest = plan({}, tmp_path)
    older = [plan({"COMFYUI_VERSION": version}, tmp_path) for version in PINS if version != VERSION]
    assert len({host.tree for host in [newest, *older]}) == len({host.python for host in [newest, *older]}) == len(PINS)
    for host in older:
        shared, own = host.environments
        assert shared.folder == newest.environments[0].folder
        assert own.base == shared.python
        assert [name for name, _ in shared.steps] == ["torch"]
        assert set(TORCH) < set(shared.steps[0][1])
        assert [name for name, _ in own.steps] == ["comfyui", "pack"]


def test_the_oldest_version_is_the_one_that_the_pack_promises():
    promised = (ROOT / "pyproject.toml").read_text().split('requires-comfyui = ">=')[1].split('"')[0]
    assert next(iter(hosts.PINS)) == promised
