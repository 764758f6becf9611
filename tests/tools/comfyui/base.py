"""The private base directory of a ComfyUI run: the pack and the toy models as custom nodes, and the model folders.

The pack is linked entry by entry, as a user's installation would have it: linking the repository's root would make
`.comfyui/` a part of itself, endless for whatever follows links.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .install import Host
from .paths import HOME, ROOT, TOY_CHECKPOINT, TOY_NODE, TOY_TRANSFORMER, TOY_TWO

PACK_NAME = "explainable-latents"
PACK_ENTRIES = (
    "__init__.py",
    "nodes",
    "js",
    "workflows",
    "locales",
    "subgraphs",
    "pyproject.toml",
    "requirements.txt",
    "LICENSE",
    "README.md",
)
FOLDERS = ("custom_nodes", "models/checkpoints", "input", "output", "temp", "user")


def prepare_base(base: Path, custom_nodes: Sequence[Path] = (), source: Path = ROOT) -> Path:
    """Make or refresh a base directory with the pack in `source`, the toy models and further `custom_nodes`.

    What a user keeps in it stays.
    """
    for folder in FOLDERS:
        (base / folder).mkdir(parents=True, exist_ok=True)
    pack = base / "custom_nodes" / PACK_NAME
    pack.mkdir(exist_ok=True)
    for entry in PACK_ENTRIES:
        _link(pack / entry, source / entry)
    for node in (TOY_NODE, *custom_nodes):
        _link(base / "custom_nodes" / node.name, node)
    for checkpoint in (TOY_CHECKPOINT, TOY_TWO, TOY_TRANSFORMER):
        _link(base / "models" / "checkpoints" / checkpoint.name, checkpoint)
    return base


def temporary_base(home: Path = HOME) -> Path:
    """A fresh, empty folder that carries this process's id; those of processes that are gone are removed."""
    runs = home / "runs"
    runs.mkdir(parents=True, exist_ok=True)
    for old in runs.iterdir():
        pid = old.name.partition("-")[0]
        if pid.isdigit() and not alive(int(pid)):
            shutil.rmtree(old, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=runs))


def model_paths(host: Host, base: Path) -> list[str]:
    """Arguments that let a run find the models of the user's own ComfyUI, by their names there."""
    models = host.tree / "models"
    if host.pinned or not models.is_dir():
        return []
    folders = {folder.name: folder.name for folder in sorted(models.iterdir()) if folder.is_dir()}
    file = base / "users_models.yaml"
    file.write_text(json.dumps({"users_models": {"base_path": str(models), **folders}}))  # JSON is YAML
    return ["--extra-model-paths-config", str(file)]


def _link(link: Path, target: Path) -> None:
    if target.exists():
        if not (link.is_symlink() and os.readlink(link) == str(target)):
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    elif link.is_symlink():
        link.unlink()


def alive(pid: int) -> bool:
    """Whether there is a process with this id, anybody's."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
