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


class Float32Stream(TorchFunctionMode):
    """While it is active, functions of a recorded tensor compute in float32, and constants can be saved by autograd.

    A network rounds its residual stream to its own precision: by a cast, or by writing into a half-precision tensor (to
    PyTorch, `x += y` is that, too). Every gradient would be rounded with it. So casts of what autograd records are left
    out, a constant that it is written into becomes float32 itself, and what else goes in is float32 and no inference
    tensor, which autograd refuses to save. A write into a part of a half-precision constant raises a ValueError.
    """

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """See `TorchFunctionMode`."""
        kwargs = kwargs or {}
        if not torch.is_grad_enabled() or not _is_recorded(tree_leaves((args, kwargs))):
            return function(*args, **kwargs)
        if function in _CASTS and _is_recorded(args[:1]):
            return args[0]
        written = args[:1] if _writes(function) else ()
        for tensor in written:
            _widen(tensor)
        args, kwargs = tree_map_only(Tensor, _constant, (args[len(written) :], kwargs))
        return function(*written, *args, **kwargs)


def _writes(function: Callable) -> bool:
    """Whether a function writes into its first operand, as `Tensor.add_` and `Tensor.__setitem__` do."""
    name = getattr(function, "__name__", "")
    return name == "__setitem__" or (name.endswith("_") and not name.endswith("__"))


def _widen(tensor: Tensor) -> None:
    """Make a floating tensor float32 in place. Raises ValueError for a view: its base would miss what is written."""
    if not tensor.is_floating_point() or tensor.dtype == torch.float32:
        return
    if tensor._is_view():
        raise ValueError(
            f"gradients cannot pass this model in {tensor.dtype}: after its last attention to the text it writes into "
            "a part of a tensor, which would round them. Load the model in float32"
        )
    tensor.data = tensor.float()


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
