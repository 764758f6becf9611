"""Reads what blocks of a network put out during one model call, without changing what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..attention.model_call import OURS
from ..compiled import uncompiled
from ..early_exit import may_leave
from ..families.family import family_of, network_of
from ..families.offers import BLOCKS
from ..patch_names import patch_name, replaced_parts

WRAPPER_KEY = OURS + "features"


class _Left(Exception):
    """All blocks have been seen: the rest of the network is left out."""


class BlockOutputs:
    """Reads the outputs of `blocks` during model calls that are made through `read`; else it does nothing.

    patcher: the model, changed in place: pass a clone.
    left: how many calls were ended early, see `early_exit`.
    """

    def __init__(self, patcher: ModelPatcher, blocks: Sequence[str]) -> None:
        self.patcher = patcher
        self._family = family_of(patcher, BLOCKS)
        self._blocks = tuple(blocks)
        self._shape: tuple[int, ...] = ()
        self._found: dict[str, Tensor] | None = None
        self._called = False
        self.left = 0
        patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WRAPPER_KEY, self._around_model)

    def read(self, call: Callable[[], object], shape: Sequence[int]) -> dict[str, Tensor]:
        """The blocks' outputs in the one model call that `call` makes, averaged over its rows: float32 [C,h,w].

        shape: of the latents of the call, [rows,C,H,W]: the same picture with several noises. Raises ValueError where
        the call did not happen, or not once for these whole latents, for blocks that did not run, and for outputs that
        are not finite.
        """
        self._shape, self._found, self._called = tuple(shape), {}, False
        try:
            call()
            found = self._found
        finally:
            self._found = None
        if not self._called:
            raise ValueError(
                "the model was not called: the positive conditioning is not active at this noise level (a timestep "
                "range); connect one that is, or choose another noise level"
            )
        if missing := [name for name in self._blocks if name not in found]:
            raise ValueError(
                f"block {', '.join(missing)} was not computed where it could be seen, but left out or computed by "
                f"{replaced_parts(network_of(self.patcher))}. Connect the model without that node"
            )
        for name, features in found.items():
            if not features.isfinite().all():
                raise ValueError(f"the output of block {name} is not finite: try another precision of the model")
        return {name: found[name] for name in self._blocks}

    def _around_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: dict | None,
        transformer_options: dict,
        **conds: Any,
    ) -> Tensor:
        """APPLY_MODEL wrapper: read the blocks, and leave the network after the last one where that is safe."""
        found = self._found
        if found is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        self._require_whole(x, transformer_options)
        self._called = True
        leave = may_leave(executor.class_obj, control, transformer_options, self.patcher.model_options)

        def see(name: str, output: Tensor) -> None:
            found[name] = output.float().mean(0).cpu()
            if leave and len(found) == len(self._blocks):
                raise _Left

        options = self._family.with_blocks(transformer_options, self._blocks, see)
        with uncompiled():
            try:
                return executor(x, t, c_concat, c_crossattn, control, options, **conds)
            except _Left:
                self.left += 1
                return torch.zeros_like(x)

    def _require_whole(self, x: Tensor, options: dict) -> None:
        """Raise ValueError unless these are all rows of the call and its whole latents, for the first time."""
        if self._called or len(options["cond_or_uncond"]) > 1:
            raise ValueError(
                "several conditionings are combined: features are read for one prompt of the whole picture. Connect "
                "the conditioning of a single CLIP Text Encode"
            )
        if (len(x), *x.shape[2:]) != (self._shape[0], *self._shape[2:]):
            wrapper = self.patcher.model_options.get("model_function_wrapper")
            cause = "the conditioning has an area" if wrapper is None else f"{patch_name(wrapper)} cuts it up"
            raise ValueError(
                f"the network was given latents of shape {tuple(x.shape)} instead of {self._shape}: {cause}. "
                "Features are read of whole pictures: connect the model or conditioning without it"
            )
