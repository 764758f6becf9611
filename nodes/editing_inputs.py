"""Inputs and outputs that editors share."""

from __future__ import annotations

from comfy_api.latest import io

from .core.attention.refine import AUTO
from .host.editing.paths import PATHS
from .sockets import Editor


def share_input(name: str, default: float, tooltip: str, advanced: bool = False) -> io.Input:
    """A share of the steps, 0 to 1."""
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, advanced=advanced, tooltip=tooltip)


def layers_input(tooltip: str) -> io.Input:
    """A choice of layers."""
    return io.String.Input("layers", default=AUTO, advanced=True, tooltip=tooltip)


def path_input(name: str, default: str, tooltip: str) -> io.Input:
    """What a picture beside the target is at each noise level."""
    return io.Combo.Input(name, options=list(PATHS), default=default, tooltip=tooltip)


def editors_before() -> io.Input:
    """The editors before this one."""
    return Editor.Input("editors", optional=True, tooltip="Another editor, which acts before this one.")


def editors_output() -> io.Output:
    """Those and this one."""
    return Editor.Output(display_name="editors", tooltip="For Twin Sampling (model patch), or a further editor.")
