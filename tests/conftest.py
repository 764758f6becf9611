"""Makes the repository importable without its root `__init__.py` (ComfyUI's business) and without `sys.path`.

`explainable_latents` is the pack, `tests` are its tests.
"""

import os
import sys
import types
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported: its threads would only wait for each other where tests or whole checks run side by side.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# ComfyUI's own `tests` would hide ours.
_tests = types.ModuleType("tests")
_tests.__path__ = [str(ROOT / "tests")]
sys.modules["tests"] = _tests

from tests.tools.comfyui.pack import alias_pack  # noqa: E402  the line above makes it importable

alias_pack()


@pytest.fixture(scope="session")
def toy_checkpoint() -> Path:
    """The trained toy checkpoint; an error says how to get it when it is missing."""
    from tests.tools.comfyui import paths

    return paths.toy_checkpoint()
