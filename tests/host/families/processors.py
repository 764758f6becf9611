"""Processors at the attention sites of a model, for the tests of its family."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from explainable_latents.nodes.host.attention.attention_call import AttentionCall, Processor
from explainable_latents.nodes.host.attention.override import processing
from explainable_latents.nodes.host.families.family import family_of
from explainable_latents.nodes.host.families.sites import CROSS, JOINT, SELF, NetworkCall


def with_processors(model: Any, make: Callable[[list[list[int]]], Sequence[Processor]]) -> Any:
    """A clone whose model calls have the processors that `make(rows)` gives at their attention.

    rows: those of the network's batch, per picture.
    """
    from comfy.patcher_extension import WrappersMP

    model, family = model.clone(), family_of(model)

    def wrapper(executor, x, t, c_concat, c_crossattn, control, transformer_options, **conds):
        count = len(x) // len(transformer_options["cond_or_uncond"])
        rows = [list(range(i, len(x), count)) for i in range(count)]
        called = NetworkCall(executor.class_obj.diffusion_model, x.shape, c_crossattn.shape[1])
        with processing(transformer_options, family, make(rows), called) as options:
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", wrapper)
    return model


class Look(Processor):
    """Notes every call at every site with what came out."""

    kinds = (CROSS, SELF, JOINT)

    def __init__(self) -> None:
        self.seen: list[tuple[AttentionCall, Tensor]] = []

    def see(self, call: AttentionCall, out: Tensor) -> None:
        self.seen.append((call, out))
