"""What PyTorch is asked to compute, operation by operation: looked at, or broken off in the middle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode


class Operations(TorchDispatchMode):
    """Calls `before` with the name of each operation inside the block, `aten::mm`; what that raises ends the work."""

    def __init__(self, before: Callable[[str], object]) -> None:
        super().__init__()
        self._before = before

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self._before(func.name())
        return func(*args, **(kwargs or {}))


def at(kind: str, number: int, act: Callable[[], object]) -> Operations:
    """`act` is called before the operation with this number, from 1 on, of those with `kind` in their names."""
    left = iter(range(number - 1, -1, -1))
    return Operations(lambda name: act() if kind in name and next(left, None) == 0 else None)
