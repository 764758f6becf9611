"""Attention that the host does not announce: networks that keep the transformer options to themselves.

For the time of a model call each of their attention modules gets a `forward` of its own: the code of its class, to
which the host's attention function is another one. Nothing of the host's is changed but these instances, and they are
as before when the call ends. What other nodes install as override stays without effect there, as without this pack.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

Attention = Callable[..., Tensor]


class Rebound:
    """Attention modules whose calls of `name` go through `seen`, until they are released.

    modules: with the transformer options that announce each. name: of the attention function in the module's file.
    seen: what runs instead, with that function first and transformer_options among its arguments. A module whose
    `forward` another node has replaced stays as it is: what that node computes is not known.
    """

    def __init__(self, modules: Iterable[tuple[nn.Module, dict]], name: str, seen: Attention) -> None:
        self._modules = [(module, options) for module, options in modules if "forward" not in vars(module)]
        for module, options in self._modules:
            own = type(module).forward
            watched = {**own.__globals__, name: _watched(own.__globals__[name], seen, options)}
            made = types.FunctionType(own.__code__, watched, own.__name__, own.__defaults__, own.__closure__)
            made.__kwdefaults__ = own.__kwdefaults__
            module.forward = types.MethodType(made, module)

    def release(self) -> None:
        """Give the modules their class's own `forward` back."""
        for module, _ in self._modules:
            del module.forward
        self._modules = []


def _watched(attention: Attention, seen: Attention, options: dict) -> Attention:
    def watched(*args: Any, **kwargs: Any) -> Tensor:
        return seen(attention, *args, transformer_options=options, **kwargs)

    return watched
