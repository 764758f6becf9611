"""Host tests run ComfyUI in this process, on the CPU, in a base directory of their own."""

import gc
import importlib
import types

import pytest

from tests.tools.comfyui.inprocess import load_comfyui

HOST = load_comfyui()

# ComfyUI copies models for other devices since 0.24.0; on an older one there is nothing to test.
collect_ignore = [] if (HOST.tree / "comfy" / "multigpu.py").is_file() else ["attention/test_copied_models.py"]


@pytest.fixture(scope="session")
def comfy() -> types.ModuleType:
    """The imported `comfy` package, with the toy model registered, so that `comfy.sd` loads its checkpoint."""
    importlib.import_module("tests.tools.toy_world.comfyui_toy_model")
    importlib.import_module("comfy.sd")
    # Some 400,000 objects of libraries, which stay: ComfyUI and tests collect garbage often, and need not look at them.
    gc.collect()
    gc.freeze()
    return importlib.import_module("comfy")


@pytest.fixture(scope="session")
def toy(comfy, toy_checkpoint):
    """The toy checkpoint with a prompt, see `toy_sampling.Toy`. It may be sampled with, cloned, but not changed."""
    from tests.host.toy_sampling import Toy

    return Toy.load(comfy, toy_checkpoint)
