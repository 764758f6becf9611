"""The private base directory: whole, without loops, and cleaned up after the dead."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.comfyui import paths
from tests.tools.comfyui.base import PACK_NAME, prepare_base, temporary_base
from tests.tools.comfyui.paths import ROOT


def test_links_the_pack_without_a_loop(tmp_path: Path):
    base = prepare_base(tmp_path / "base")
    pack = base / "custom_nodes" / PACK_NAME
    assert (pack / "__init__.py").resolve() == ROOT / "__init__.py"
    assert (pack / "nodes" / "extension.py").resolve() == ROOT / "nodes" / "extension.py"
    walked = [Path(folder).resolve() for folder, _, _ in os.walk(base, followlinks=True)]
    assert ROOT not in walked
    assert len(walked) == len(set(walked))


def test_refreshes_links_and_keeps_what_is_the_users(tmp_path: Path):
    base = prepare_base(tmp_path)
    pack = base / "custom_nodes" / PACK_NAME
    users = base / "models" / "checkpoints" / "sd15.safetensors"
    users.write_text("weights")
    (pack / "nodes").unlink()
    (pack / "nodes").symlink_to(tmp_path / "elsewhere")
    (pack / "subgraphs").unlink(missing_ok=True)
    (pack / "subgraphs").symlink_to(tmp_path / "gone")
    extra = tmp_path / "extra.py"
    extra.touch()
    prepare_base(base, [extra])
    assert (pack / "nodes").resolve() == ROOT / "nodes"
    assert (pack / "subgraphs").is_symlink() is (ROOT / "subgraphs").exists()
    assert (base / "custom_nodes" / "extra.py").resolve() == extra
    assert users.read_text() == "weights"


def test_folders_of_dead_runs_are_removed(tmp_path: Path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine = temporary_base(tmp_path)
    left = tmp_path / "runs" / f"{dead.pid}-x"
    left.mkdir()
    (left / "half.png").touch()
    other = temporary_base(tmp_path)
    assert not left.exists()
    assert mine.is_dir()
    assert other.is_dir()
    assert mine != other


def test_a_missing_toy_checkpoint_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(paths, "TOY_CHECKPOINT", tmp_path / "toy.safetensors")
    with pytest.raises(FileNotFoundError, match=r"toy\.safetensors is missing: .*`make toy`"):
        paths.toy_checkpoint()
