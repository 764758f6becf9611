"""What tests of gradients share."""

import inspect
from collections.abc import Callable

import pytest


@pytest.fixture
def little_memory(comfy, monkeypatch) -> Callable[[], None]:
    """Call it, and from then on the pack is told that no memory is free; the host, which plans by it, sees what is."""
    import comfy.model_management

    free = comfy.model_management.get_free_memory

    def none_for_the_pack(*args, **kwargs):
        asking = inspect.currentframe().f_back.f_globals["__name__"]
        return 0 if asking.startswith("explainable_latents.") else free(*args, **kwargs)

    return lambda: monkeypatch.setattr(comfy.model_management, "get_free_memory", none_for_the_pack)
