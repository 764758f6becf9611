"""The same random noise for all pictures of a twin run, whatever the sampler draws it with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SharedNoise(TorchFunctionMode):
    """While it is active, normal noise of a twin run's shape is drawn for one block and repeated for the others.

    So each block has the very noise of a run of its own: generators are asked for as many numbers as there. Nothing
    else changes. shape: of the state of all blocks, [count·B,C,h,w]. count: of blocks.
    """

    def __init__(self, shape: Sequence[int], count: int = 2) -> None:
        super().__init__()
        self._shape = torch.Size(shape)
        self._count = count
        self._one = torch.Size((shape[0] // count, *shape[1:]))
        self._paused = False

    def __torch_function__(
        self, function: Callable, types: Any, args: tuple = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Called by PyTorch in place of each of its functions."""
        kwargs = dict(kwargs or {})
        if function is torch.randn_like and args[0].shape == self._shape:
            return self._repeated(function(args[0][: self._one[0]], *args[1:], **kwargs), self._count)
        if function is torch.randn and self._wanted(args, kwargs) == self._shape:
            kwargs.pop("size", None)
            return self._repeated(function(self._one, **kwargs), self._count)
        if function is Tensor.normal_ and args[0].shape == self._shape:
            drawn = function(args[0][: self._one[0]], *args[1:], **kwargs)
            args[0][self._one[0] :].copy_(self._repeated(drawn, self._count - 1))
            return args[0]
        return function(*args, **kwargs)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside the block it is not active: the model needs no noise, and it may be compiled."""
        if self._paused:
            yield
            return
        self._paused = True
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()
            self._paused = False

    @staticmethod
    def _wanted(args: tuple, kwargs: Mapping[str, Any]) -> torch.Size | None:
        """The shape that `torch.randn` is asked for."""
        size = kwargs.get("size", args)
        size = size[0] if len(size) == 1 and isinstance(size[0], Sequence) else size
        return torch.Size(size)

    @staticmethod
    def _repeated(noise: Tensor, count: int) -> Tensor:
        return torch.cat([noise] * count)
