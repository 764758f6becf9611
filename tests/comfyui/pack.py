"""The pack as an importable package, without its root `__init__.py` (ComfyUI's business) and without `sys.path`."""

import sys
import types

from .paths import ROOT


def alias_pack() -> None:
    """Make `import explainable_latents.nodes...` work.

    On `sys.path` the root would let our `nodes` hide ComfyUI's `nodes.py`.
    """
    package = types.ModuleType("explainable_latents")
    package.__path__ = [str(ROOT)]
    sys.modules["explainable_latents"] = package
