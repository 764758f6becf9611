"""Full float32 precision for a while."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")


@contextmanager
def full_float32() -> Iterator[None]:
    """Inside the block float32 is computed as float32, not rounded to TF32 (or bfloat16) where the device could.

    By default cuDNN rounds what enters a convolution to TF32's 10 bits, so gradients would be right to 1e-3 only.
    PyTorch's flags are those of the process; they are put back at the end, however the block ends.
    """
    backends = torch.backends
    # Since PyTorch 2.9 each kind of operation has a precision of its own, beside the older flags, and both must agree.
    kinds = []
    if hasattr(backends.cudnn, "conv"):
        kinds = [backends.cuda.matmul, backends.cudnn.conv, backends.cudnn.rnn]
        kinds += [backends.mkldnn.matmul, backends.mkldnn.conv]
    before = [kind.fp32_precision for kind in kinds]
    products = _told(torch.get_float32_matmul_precision)
    convolutions = _told(lambda: backends.cudnn.allow_tf32)
    try:
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = False
        for kind in kinds:
            kind.fp32_precision = "ieee"
        yield
    finally:
        if products is not None:
            torch.set_float32_matmul_precision(products)
        if convolutions is not None:
            backends.cudnn.allow_tf32 = convolutions
        for kind, precision in zip(kinds, before, strict=True):
            kind.fp32_precision = precision


def _told(flag: Callable[[], T]) -> T | None:
    """The value of an older flag; None where only the newer ones were set, which PyTorch then refuses to tell by it."""
    try:
        return flag()
    except RuntimeError:
        return None
