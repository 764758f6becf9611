"""Makes the repository importable without its root `__init__.py` (ComfyUI's business) and without `sys.path`.

`explainable_latents` is the pack, `tests` are its tests.
"""

import os
import sys
import types
from pathlib import Path

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent

# Before torch is imported: its threads would only wait for each other where tests or whole checks run side by side.
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

# ComfyUI's own `tests` would hide ours.
_tests = types.ModuleType("tests")
_tests.__path__ = [str(ROOT / "tests")]
sys.modules["tests"] = _tests

from tests.tools.comfyui.pack import alias_pack  # noqa: E402  the line above makes it importable
from tests.tools.thorough import halve  # noqa: E402

alias_pack()

# A machine may be busy: how long an example takes says nothing.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")

# Files whose tests take longest begin first: one that began last would run alone at the end.
LONGEST = (
    "evaluate/test_servers.py",
    "evaluate/test_killed_servers.py",
    "servers/test_server.py",
    "servers/test_demo.py",
    "host/test_text_encoders.py",
    "families/test_transformers.py",
    "sampling/test_samplers.py",
    "autograd/test_gradients.py",
    "sampling/test_masked_model.py",
    "host/test_devices.py",
    "browser/test_frontend.py",
    "browser/test_inspector.py",
    "browser/test_chips.py",
    "browser/test_pauses.py",
    "workflows/test_pauses.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave half of each long list of cases to `make test-thorough`; put the longest files first, browsers' at the end.

    Where a browser was opened, Playwright's event loop runs until the end, beside which tests cannot start their own.
    """
    halve(items)
    places = {name: place for place, name in enumerate(LONGEST)}

    def order(item: pytest.Item) -> tuple[bool, int]:
        return "browser" in item.path.parts, places.get("/".join(item.path.parts[-2:]), len(LONGEST))

    items.sort(key=order)


@pytest.fixture(scope="session")
def toy_checkpoint() -> Path:
    """The trained toy checkpoint; an error says how to get it when it is missing."""
    from tests.tools.comfyui import paths

    return paths.toy_checkpoint()
