"""What to call a function that another node put on the model, so that its user finds the node."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable

from comfy.patcher_extension import WrappersMP, get_all_wrappers
from torch import nn

_OURS = __name__.rpartition(".host.")[0]
_PACKS = re.compile(r".*[/\\]custom_nodes[/\\]([^/\\]+)")


def patch_name(patch: Callable) -> str:
    """The patch's name in the code and where it comes from: `couple.attn2_patch of ComfyUI-ppm.src.couple`.

    For a pack that is installed, the place starts with the pack's folder.
    """
    function = inspect.unwrap(patch)
    while isinstance(function, functools.partial):
        function = inspect.unwrap(function.func)
    if not hasattr(function, "__qualname__"):  # an object that can be called
        function = type(function)
    name = function.__qualname__.replace(".<locals>", "")
    module = (function.__module__ or "").replace("_x_", ".")
    installed = _PACKS.match(module)
    place = installed[1] if installed else module
    return f"{name} of {place}"


def patch_names(patches: Iterable[Callable]) -> str:
    """The names of several, each once: `first and second`."""
    return " and ".join(dict.fromkeys(patch_name(patch) for patch in patches))


def other_names(patches: Iterable[Callable]) -> str:
    """The names of those that are not this pack's own; `another node` if there are none."""
    return patch_names(of_other_nodes(patches)) or "another node"


def replaced_parts(network: nn.Module, options: dict | None = None) -> str:
    """The names of what replaces the `forward` of modules of the network; `another node` where nothing does.

    options: transformer options of a call, of which what is wrapped around the network counts too.
    """
    patches = [vars(part)["forward"] for part in network.modules() if "forward" in vars(part)]
    return other_names([*patches, *get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options or {})])


def of_other_nodes(patches: Iterable[Callable]) -> list[Callable]:
    """The patches that are not this pack's own: several of its captures may be on one model."""
    return [patch for patch in patches if not getattr(inspect.unwrap(patch), "__module__", "").startswith(_OURS)]
