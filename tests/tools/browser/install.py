"""Finds a Chromium for the browser tests, or sets one up: `python -m tests.tools.browser.install` (`make browser`).

In this order: the program that CHROMIUM names; an installed chromium or chrome; the one that Playwright downloaded into
`.comfyui/browsers`; else Playwright downloads it, or, where that fails or lacks system libraries and we are root on
Debian, apt-get installs Debian's.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ..comfyui.command import run_main
from ..comfyui.errors import InstallError
from ..comfyui.paths import HOME

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
APPLICATIONS = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
DOWNLOADED = ("chrome", "Chromium", "Google Chrome for Testing")
OS_RELEASE = Path("/etc/os-release")
DOWNLOAD_SECONDS = 900
VERSION_SECONDS = 60
LOG_LINES = 12
WAY_OUT = (
    "Install Chromium or Chrome yourself (Debian: `apt-get install chromium`), or set CHROMIUM to its path, and run "
    "the command again."
)


def find(environ: Mapping[str, str] = os.environ, home: Path = HOME) -> Path | None:
    """The browser to use, or None when there is none; InstallError when CHROMIUM names something that does not run."""
    named = environ.get("CHROMIUM")
    if named:
        program = shutil.which(named, path=environ.get("PATH"))
        if not program or not runs(Path(program)):
            raise InstallError(f"CHROMIUM={named} is not a browser that runs: give the path of Chromium or Chrome")
        return Path(program)
    found = [shutil.which(name, path=environ.get("PATH")) for name in NAMES]
    candidates = [*map(Path, filter(None, found)), *APPLICATIONS, *downloaded(home)]
    return next((program for program in candidates if program.is_file() and runs(program)), None)


def install(environ: Mapping[str, str] = os.environ, home: Path = HOME, os_release: Path = OS_RELEASE) -> Path:
    """The browser to use, set up when there is none; InstallError with what was tried and the way out."""
    browser = find(environ, home)
    if browser:
        return browser
    log = home / "browser.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_bytes(b"")
    print(f"no Chromium found: setting one up (log: {log})", file=sys.stderr, flush=True)
    tried = []
    for name, commands in ways(environ, home, os_release):
        done = [_run(command, {**environ, **more}, log) for command, more in commands]
        browser = find(environ, home)
        if browser:
            return browser
        tried.append(f"{name} {'left no browser that runs' if done[-1] else 'failed'}")
    end = "\n".join(log.read_text(errors="replace").strip().splitlines()[-LOG_LINES:])
    raise InstallError(f"no Chromium: {'; '.join(tried)}. {WAY_OUT}\nThe end of {log}:\n{end}")


def ways(
    environ: Mapping[str, str], home: Path, os_release: Path
) -> list[tuple[str, list[tuple[list[str], dict[str, str]]]]]:
    """How a browser can be had here: names, and their commands with the environment variables they want."""
    folder = {"PLAYWRIGHT_BROWSERS_PATH": str(home / "browsers")}
    found = [("Playwright's download", [([sys.executable, "-m", "playwright", "install", "chromium"], folder)])]
    apt = shutil.which("apt-get", path=environ.get("PATH"))
    if apt and os.geteuid() == 0 and "ID=debian" in _lines(os_release):  # Ubuntu's package is a stub for a snap
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        options = ["-y", "-o", "Acquire::Retries=3", "-o", "DPkg::Lock::Timeout=300"]
        packages = ["chromium", "fonts-dejavu-core"]
        found.append(
            (
                "apt-get",
                [
                    ([apt, "update", *options], quiet),
                    ([apt, "install", "--no-install-recommends", *options, *packages], quiet),
                ],
            )
        )
    return found


def runs(program: Path) -> bool:
    """Whether it starts: one without its libraries, or a distribution's stub, does not."""
    try:
        done = subprocess.run([program, "--version"], capture_output=True, timeout=VERSION_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def downloaded(home: Path) -> list[Path]:
    """What Playwright put into `home`, newest first."""
    programs = (
        p for p in (home / "browsers").glob("chromium-*/**/*") if p.name in DOWNLOADED and os.access(p, os.X_OK)
    )
    return sorted((p for p in programs if p.is_file()), key=lambda p: p.stat().st_mtime, reverse=True)


def _run(command: list[str], environ: Mapping[str, str], log: Path) -> bool:
    """Run it, what it says goes to the log; whether it succeeded."""
    with log.open("ab") as file:
        file.write(f"\n$ {' '.join(command)}\n".encode())
        file.flush()
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environ,
                timeout=DOWNLOAD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            file.write(f"given up after {DOWNLOAD_SECONDS} s\n".encode())
            return False
    return done.returncode == 0


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


def main() -> None:
    """Set the browser up and say where it is."""
    print(f"browser: {install()}")


if __name__ == "__main__":
    run_main(main)
