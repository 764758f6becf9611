"""What depends on a recorded tensor stays in float32, whatever the network does with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from comfy.quant_ops import QuantizedTensor
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only

_CASTS = {Tensor.to, Tensor.type_as, Tensor.half, Tensor.bfloat16}

# Operators that write into their first operand, and what gives the same result as a new tensor.
_NEW = {
    Tensor.__iadd__: torch.add,
    Tensor.__isub__: torch.sub,
    Tensor.__imul__: torch.mul,
    Tensor.__itruediv__: torch.true_divide,
}


class Float32Stream(TorchFunctionMode):
    """While it is active, functions of a recorded tensor compute in float32, and constants can be saved by autograd.

    A network rounds its residual stream to its own precision: by a cast, or by adding to a half-precision tensor. Every
    gradient would be rounded with it. So casts of what autograd records are left out, a sum with it is a new tensor,
    and what else goes in is float32 and no inference tensor, which autograd refuses to save.
    """

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or not _is_recorded(tree_leaves((args, kwargs))):
            return function(*args, **kwargs)
        if function in _CASTS and _is_recorded(args[:1]):
            return args[0]
        if not _is_recorded(args[:1]):
            function = _NEW.get(function, function)
        written = getattr(function, "__name__", "").rstrip("_") != getattr(function, "__name__", "")
        own = args[:1] if written else ()
        args, kwargs = tree_map_only(Tensor, _constant, (args[len(own) :], kwargs))
        return function(*own, *args, **kwargs)


def _is_recorded(values: Iterable[Any]) -> bool:
    return any(isinstance(each, Tensor) and each.requires_grad for each in values)


def _constant(tensor: Tensor) -> Tensor:
    """A tensor that is not recorded as float32, if it has floating numbers, and such that autograd can save it."""
    if tensor.requires_grad:
        return tensor
    if isinstance(tensor, QuantizedTensor):
        tensor = tensor.dequantize()
    if tensor.is_floating_point() and tensor.dtype != torch.float32:
        return tensor.float()
    return tensor.clone() if tensor.is_inference() else tensor
