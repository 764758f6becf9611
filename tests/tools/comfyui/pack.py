"""The pack as an importable package, without its root `__init__.py` (ComfyUI's business) and without `sys.path`."""

import sys
import types

from .paths import ROOT


def alias_pack() -> None:
    """Make `import explainable_latents.nodes...` work; once in a process, so that what was imported stays a part of it.

    On `sys.path` the root would let our `nodes` hide ComfyUI's `nodes.py`.
    """
    if "explainable_latents" in sys.modules:
        return
    package = types.ModuleType("explainable_latents")
    package.__path__ = [str(ROOT)]
    sys.modules["explainable_latents"] = package
