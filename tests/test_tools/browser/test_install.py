"""The finder and installer of the browser, with programs that only say their version."""

import os
import sys
from pathlib import Path

import pytest

from tests.tools.browser.install import find, install
from tests.tools.comfyui.errors import InstallError


def program(path: Path, body: str = "echo Chromium 1") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A machine without a browser whose Python cannot download one."""
    monkeypatch.setattr(sys, "executable", str(program(tmp_path / "python", "echo no network; exit 1")))
    monkeypatch.setattr("tests.tools.browser.install.APPLICATIONS", ())
    (tmp_path / "bin").mkdir()
    return {"PATH": f"{tmp_path / 'bin'}{os.pathsep}/bin-of-nobody", "DIR": str(tmp_path)}


def os_release(folder: Path, name: str = "debian") -> Path:
    file = folder / "os-release"
    file.write_text(f'NAME="Any"\nID={name}\nID_LIKE=debian\n')
    return file


def test_the_named_browser_comes_first(bare: dict[str, str], tmp_path: Path):
    program(tmp_path / "bin" / "chromium")
    named = program(tmp_path / "mine" / "browser")
    assert find(bare, tmp_path) == tmp_path / "bin" / "chromium"
    assert find({**bare, "CHROMIUM": str(named)}, tmp_path) == named
    assert find({**bare, "CHROMIUM": "chromium"}, tmp_path) == tmp_path / "bin" / "chromium"


@pytest.mark.parametrize("body", [None, "exit 1"])
def test_a_named_browser_that_does_not_run_is_an_error(bare: dict[str, str], tmp_path: Path, body: str | None):
    named = tmp_path / "mine" / "browser"
    if body:
        program(named, body)
    with pytest.raises(InstallError, match=r"CHROMIUM=.*browser is not a browser that runs"):
        find({**bare, "CHROMIUM": str(named)}, tmp_path)


def test_a_stub_is_passed_over_for_one_that_runs(bare: dict[str, str], tmp_path: Path):
    program(tmp_path / "bin" / "chromium-browser", "echo install the snap >&2; exit 1")
    assert find(bare, tmp_path) is None
    ours = program(tmp_path / "browsers" / "chromium-1" / "chrome-linux64" / "chrome")
    assert find(bare, tmp_path) == ours
    chrome = program(tmp_path / "bin" / "google-chrome")
    assert find(bare, tmp_path) == chrome


def test_nothing_is_set_up_where_there_is_a_browser(bare: dict[str, str], tmp_path: Path):
    chrome = program(tmp_path / "bin" / "chrome")
    assert install(bare, tmp_path / "home", os_release(tmp_path)) == chrome
    assert not (tmp_path / "home").exists()


def test_playwright_downloads_into_our_folder(bare: dict[str, str], tmp_path: Path):
    body = 'd="$PLAYWRIGHT_BROWSERS_PATH/chromium-9/chrome-linux"; mkdir -p "$d"; cp "$DIR/chrome" "$d/chrome"'
    program(tmp_path / "chrome")
    program(tmp_path / "python", body)
    with_tools = {**bare, "PATH": f"{bare['PATH']}{os.pathsep}{os.environ['PATH']}", "CHROMIUM": ""}
    hidden = {**with_tools, "PATH": tools_only(tmp_path)}
    assert install(hidden, tmp_path, os_release(tmp_path)).is_relative_to(tmp_path / "browsers" / "chromium-9")


def tools_only(folder: Path) -> str:
    """A PATH with what the scripts need and no browser."""
    tools = folder / "tools"
    tools.mkdir()
    for name in ("mkdir", "cp", "echo"):
        (tools / name).symlink_to(f"/bin/{name}")
    return str(tools)


def test_root_on_debian_gets_it_from_apt(bare: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    body = 'echo "$@" "$DEBIAN_FRONTEND" >>"$DIR/said"; [ "$1" = install ] && cp "$DIR/chrome" "$DIR/bin/chromium"'
    program(tmp_path / "chrome")
    program(tmp_path / "bin" / "apt-get", body)
    environ = {**bare, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{tools_only(tmp_path)}"}
    assert install(environ, tmp_path, os_release(tmp_path)) == tmp_path / "bin" / "chromium"
    update, done = (tmp_path / "said").read_text().splitlines()
    assert update.startswith("update -y")
    assert done.startswith("install --no-install-recommends -y")
    assert "chromium" in done.split()
    assert done.endswith("noninteractive")


def test_others_on_debian_do_not_try_apt(bare: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    program(tmp_path / "bin" / "apt-get", 'echo "$@" >>"$DIR/said"')
    with pytest.raises(InstallError, match=r"Playwright's download failed\. Install"):
        install(bare, tmp_path, os_release(tmp_path))
    assert not (tmp_path / "said").exists()


def test_the_error_says_what_was_tried_and_the_way_out(bare: dict[str, str], tmp_path: Path):
    program(tmp_path / "bin" / "apt-get", "echo never on Ubuntu; exit 1")
    with pytest.raises(InstallError, match=r"Playwright's download failed\. .*apt-get install chromium") as caught:
        install(bare, tmp_path, os_release(tmp_path, "ubuntu"))
    assert "no network" in str(caught.value)
    assert "never on Ubuntu" not in str(caught.value)
