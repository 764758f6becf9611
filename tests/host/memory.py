"""How much memory tensors take at once, counted, not measured: the same on every machine; and a device without any."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class MostBytes(TorchDispatchMode):
    """`most` is the largest number of bytes of the tensors that were alive together, of those made inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {each.untyped_storage().data_ptr() for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)}
        made = func(*args, **(kwargs or {}))
        for each in tree_leaves(made):
            if isinstance(each, Tensor) and (storage := each.untyped_storage()).data_ptr() not in known:
                self._alive[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        self._alive = {key: entry for key, entry in self._alive.items() if not entry[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._alive.values()))
        return made


@contextmanager
def nothing_free() -> Iterator[None]:
    """Inside, the pack is told that no memory is free; the host, which plans by it, sees what is."""
    import comfy.model_management

    free = comfy.model_management.get_free_memory

    def none_for_the_pack(*args: Any, **kwargs: Any) -> Any:
        asking = inspect.currentframe().f_back.f_globals["__name__"]
        return 0 if asking.startswith("explainable_latents.") else free(*args, **kwargs)

    with patch.object(comfy.model_management, "get_free_memory", none_for_the_pack):
        yield
