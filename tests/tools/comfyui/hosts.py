"""Run the node, host and workflow tests on every ComfyUI of `install.PINS`: `make test-hosts`.

`python -m tests.tools.comfyui.hosts VERSION... -- PYTEST...`: one after the other, all of them when none is named; each
is set up when it is missing (half a minute). What follows goes to pytest. The table at the end says what passed and
what failed where.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from .command import run_main
from .install import PINS, plan
from .paths import ROOT

RESULTS = ROOT / "output" / "hosts"


@dataclass(frozen=True)
class Outcome:
    """What the tests gave on one ComfyUI. failed: the names of those that did not pass."""

    version: str
    passed: int
    failed: tuple[str, ...]
    minutes: float

    @property
    def good(self) -> bool:
        """Whether tests ran and all of them passed."""
        return self.passed > 0 and not self.failed

    def row(self) -> str:
        """A line of the table."""
        return f"| {self.version} | {self.passed} | {len(self.failed)} | {self.minutes:.0f} |"


def run_on(version: str, arguments: Sequence[str]) -> Outcome:
    """Run pytest with `arguments` on that ComfyUI; its report is kept below `output/hosts`."""
    environ = {k: v for k, v in os.environ.items() if k not in ("COMFYUI_PATH", "COMFYUI_PYTHON")}
    environ["COMFYUI_VERSION"] = version
    plan(environ)
    report = RESULTS / f"{version}.xml"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "tests.tools.comfyui", "run", "-m", "pytest", "-q", "-m", "not matrix"]
    began = time.monotonic()
    subprocess.run([*command, f"--junitxml={report}", *arguments], cwd=ROOT, env=environ, check=False)
    return read_report(version, report, (time.monotonic() - began) / 60)


def read_report(version: str, report: Path, minutes: float) -> Outcome:
    """The outcome in pytest's own report; without one nothing passed and nothing failed."""
    cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
    bad = [case for case in cases if any(case.find(kind) is not None for kind in ("failure", "error"))]
    names = dict.fromkeys(f"{case.get('classname')}::{case.get('name')}" for case in bad)
    return Outcome(version, len(cases) - len(bad), tuple(names), minutes)


def main() -> int:
    """Run, print the table, and return 1 unless all tests passed on every version."""
    given = sys.argv[1:]
    cut = given.index("--") if "--" in given else len(given)
    outcomes = []
    for version in given[:cut] or PINS:
        print(f"\n== ComfyUI {version}", flush=True)
        outcomes.append(run_on(version, given[cut + 1 :]))
    print("\n| ComfyUI | passed | failed | minutes |\n|---|---|---|---|")
    for outcome in outcomes:
        print(outcome.row())
    for outcome in outcomes:
        for name in outcome.failed:
            print(f"failed on {outcome.version}: {name}")
        if not (outcome.passed or outcome.failed):
            print(f"no test ran on {outcome.version}: see above")
    return int(not all(outcome.good for outcome in outcomes))


if __name__ == "__main__":
    run_main(main)
