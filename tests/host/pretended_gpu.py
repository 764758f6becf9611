"""A GPU that this machine does not have: tensors that say they are on it and have their values on the CPU.

PyTorch's `FakeTensorMode` knows without a GPU on which device, in which precision and of which shape each result would
be, and raises where an operation mixes devices. Its tensors have no values, so a program would end at the first `if`
that asks for one, and at the first backward pass. Here every operation is also done on the CPU, with the values of
these tensors: what hangs on a value (`float`, `torch.equal`, `nonzero`) goes on as on a GPU, gradients are real ones,
and results can be compared with those of a run on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_leaves, tree_map, tree_unflatten

GPU = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_FREE = 8 * 2**30
_OF_THE_DEVICE = ("is_cuda", "is_cpu", "is_meta")
# Made of numbers: PyTorch would go by way of the CPU, and ask the driver there.
_OF_NUMBERS = (torch.tensor, Tensor.new_tensor)


@contextmanager
def pretended_gpu() -> Iterator[None]:
    """Inside, tensors can be on `GPU`, and an operation on tensors of different devices raises RuntimeError.

    The driver, which nobody can ask here, would say that 8 GiB are free.
    """
    nothing = {"active_bytes.all.current": 0, "reserved_bytes.all.current": 0}
    with pytest.MonkeyPatch.context() as patch, _PretendedGpu():
        patch.setattr(torch.cuda, "current_device", lambda: GPU.index)
        patch.setattr(torch.cuda, "memory_stats", lambda device: nothing)
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (_FREE, _FREE))
        yield


def values_of(x: Tensor) -> Tensor:
    """The values of a tensor that may be a pretended one, as an ordinary one on the CPU."""
    return x.value.detach() if isinstance(x, FakeTensor) else x


class _PretendedGpu(TorchFunctionMode):
    """Does every operation twice: for its device, precision and shape, and for its values."""

    def __init__(self) -> None:
        super().__init__()
        self._fake = FakeTensorMode()

    def __torch_function__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        if func is Tensor.__iter__:
            return iter(self.__torch_function__(Tensor.unbind, types, args))
        args, kwargs = tree_map(self._pretended, (args, kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, FakeTensor)]
        claimed = self._claimed(func, args, kwargs, inputs)
        if getattr(func, "__name__", "") == "__get__" and func.__self__.__name__ in _OF_THE_DEVICE:
            return claimed
        result = func(*tree_map(_on_the_cpu, args), **tree_map(_on_the_cpu, kwargs))
        values, structure = tree_flatten(result)
        if not any(isinstance(value, Tensor) for value in values):
            return result
        claims = [None] * len(values) if claimed is None else tree_leaves(claimed)
        device = kwargs.get("device") or next((x.device for x in inputs), _CPU)
        joined = [self._joined(*pair, device, inputs) for pair in zip(claims, values, strict=True)]
        return tree_unflatten(joined, structure)

    def _claimed(self, func: Callable, args: tuple, kwargs: dict, inputs: list[FakeTensor]) -> Any:
        """The result without values; None where it hangs on values, and is where all that it is made of is."""
        if func is Tensor.numpy:
            if inputs[0].device != _CPU:
                raise TypeError(f"can't convert a tensor on {inputs[0].device} to numpy")
            return None
        if func is not torch.autograd.grad and func not in _OF_NUMBERS:
            if "generator" in kwargs:
                kwargs = {**kwargs, "generator": None}
            with suppress(DataDependentOutputException, DynamicOutputShapeException), self._fake, torch.no_grad():
                return func(*args, **kwargs)
        if func is not Tensor.__getitem__ and len({x.device for x in inputs if x.ndim}) > 1:
            raise RuntimeError(f"{func.__name__} of tensors on different devices: {[x.device for x in inputs]}")
        return None

    def _joined(self, claim: Any, value: Any, device: torch.device, inputs: list[FakeTensor]) -> Any:
        """A result with its value. On another device than what it was made from, it shares no memory with that."""
        if not isinstance(value, Tensor):
            return value
        tensor = self._like(value, device) if claim is None else claim
        if (tensor.shape, tensor.dtype) != (value.shape, value.dtype):
            raise AssertionError(f"{tuple(tensor.shape)} {tensor.dtype} is pretended for {value.shape} {value.dtype}")
        elsewhere = (x.value for x in inputs if x.device != tensor.device)
        shared = any(x.untyped_storage().data_ptr() == value.untyped_storage().data_ptr() for x in elsewhere)
        tensor.value = value.clone() if shared else value
        return tensor

    def _like(self, value: Tensor, device: torch.device) -> FakeTensor:
        meta = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="meta")
        return FakeTensor(self._fake, meta, device)

    def _pretended(self, x: Any) -> Any:
        """Ordinary tensors are on the CPU, also here."""
        if not isinstance(x, Tensor) or isinstance(x, FakeTensor):
            return x
        tensor = self._fake.from_tensor(x)
        tensor.value = x
        return tensor


def _on_the_cpu(x: Any) -> Any:
    if isinstance(x, FakeTensor):
        return x.value
    return _CPU if isinstance(x, torch.device) else x
