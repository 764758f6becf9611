"""Compiled models (by TorchCompileModel or by torch.compile in any other place)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def hidden_by_compilation() -> str:
    """What to tell the user of a compiled model whose attention is captured."""
    if hasattr(torch.compiler, "set_stance"):
        return "the model is compiled: the steps that are captured run uncompiled, so that attention can be read"
    return (
        "the model is compiled, which hides its attention, and PyTorch before 2.6 cannot run it uncompiled: "
        "connect the model without TorchCompileModel"
    )


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside the block compiled functions run as they are written; the compiled code is kept for later.

    Attention inside compiled code cannot be captured: the host's node reuses that code even when the model has got
    other wrappers and patches, so these are skipped, or those of an earlier run are called. Nor can autograd record
    inside it. Compiling a second version for the few captured calls would take longer than the calls themselves.
    """
    # Without this module nothing is compiled, and importing it takes seconds. PyTorch before 2.6 has no such switch.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def as_written(network: nn.Module) -> nn.Module:
    """The network itself, also if `torch.compile` has wrapped it in another module."""
    return getattr(network, "_orig_mod", network)
