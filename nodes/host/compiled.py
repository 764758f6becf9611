"""Models that are compiled (TorchCompileModel, or torch.compile in any other place)."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


def hidden_by_compilation() -> str:
    """What to tell of a compiled model whose attention is captured."""
    if hasattr(torch.compiler, "set_stance"):
        return "the model is compiled: the steps that are captured run uncompiled, as compiled code hides them"
    return (
        "the model is compiled, which hides its attention, and PyTorch before 2.6 cannot run it uncompiled: "
        "connect the model without TorchCompileModel"
    )


@contextmanager
def uncompiled() -> Iterator[None]:
    """Inside the block compiled functions run as they are written; what was compiled of them stays for later.

    Compiled code cannot be looked into: the host's own node has it reused whatever wrappers and patches the model has
    by then, so that they are passed over, or an earlier run's are called; and autograd's record does not reach through
    it. To compile a copy for the few calls that are looked into would take longer than they do.
    """
    # Nothing is compiled before this module is imported, which takes seconds. PyTorch before 2.6 has no such switch.
    if "torch._dynamo" not in sys.modules or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def as_written(network: nn.Module) -> nn.Module:
    """The module itself where `torch.compile` has put another in front of it."""
    return getattr(network, "_orig_mod", network)
