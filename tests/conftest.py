"""Makes the repository importable without its root `__init__.py` (ComfyUI's business) and without `sys.path`.

`explainable_latents` is the pack, `tests` are its tests. On `sys.path` the root would let our `nodes` hide ComfyUI's
`nodes.py`, and ComfyUI's own `tests` hide ours.
"""

import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _alias(name: str, folder: Path) -> None:
    package = types.ModuleType(name)
    package.__path__ = [str(folder)]
    sys.modules[name] = package


_alias("explainable_latents", ROOT)
_alias("tests", ROOT / "tests")


@pytest.fixture(scope="session")
def toy_checkpoint() -> Path:
    """The trained toy checkpoint; an error says how to get it when it is missing."""
    from tests.comfyui import paths

    return paths.toy_checkpoint()
