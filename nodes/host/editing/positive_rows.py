"""What edits the rows of the positive conditionings in every run of a model, without a twin.

Installed through the host's wrappers:

  OUTER_SAMPLE     a run begins and ends
  PREDICT_NOISE    one model call of the sampler: what is to be edited in it
  CALC_COND_BATCH  which of the guider's lists is the positive one
  APPLY_MODEL      the network itself: a processor edits its attention
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn

from ..attention.model_call import ASIDE, EDITED
from ..attention.override import processing
from ..compiled import as_written, uncompiled
from ..families.family import Family
from ..families.sites import NetworkCall
from ..ui.running_node import show_on_running_node
from .editors import EditedCall, EditingProcessor

log = logging.getLogger("explainable_latents")


@dataclass
class EditedStep:
    """One model call of a sampler.

    batch: rows of one conditioning. positive: ids of the guider's positive conditionings, in their order. lists: which
    of the lists that the host evaluates hold them: an id alone does not say so, since to a positive conditioning with
    an area the host puts one of the same id and area among the negative ones.
    """

    batch: int
    positive: Collection[Any]
    lists: frozenset[int] = field(default=frozenset(), init=False)


class PositiveRows:
    """What is installed on a model. name: of the method, for messages."""

    def __init__(self, name: str, family: Family) -> None:
        self.family = family
        self._name = name
        self._told: set[str] | None = None
        self._step: EditedStep | None = None

    def begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> EditedStep | None:
        """What is to be edited in a model call on the sampler's state; None for nothing."""
        raise NotImplementedError

    def processor(
        self, step: Any, call: EditedCall, x: Tensor, context: Tensor, network: nn.Module, options: dict
    ) -> EditingProcessor | None:
        """What edits a call of the network with input `x` and `context` [rows,T,d]; None for nothing.

        step: what `begin` returned. options: the host's transformer options.
        """
        raise NotImplementedError

    def install(self, patcher: ModelPatcher, key: str) -> None:
        """Edit every run of `patcher` (changed in place: pass a clone). key: of the wrappers."""
        for kind, wrapper in (
            (WrappersMP.OUTER_SAMPLE, self._around_run),
            (WrappersMP.PREDICT_NOISE, self._around_step),
            (WrappersMP.CALC_COND_BATCH, self._around_batch),
            (WrappersMP.APPLY_MODEL, self._around_model),
        ):
            patcher.add_wrapper_with_key(kind, key, wrapper)

    def conditionings(self, step: EditedStep, count: int, options: dict) -> Iterator[tuple[Any, slice]]:
        """Id and rows of every positive conditioning in a call of the network with `count` rows."""
        kinds = options["cond_or_uncond"]
        if count != step.batch * len(kinds):
            self.warn(
                f"the network was called with {count} rows instead of {len(kinds)} conditionings of {step.batch} "
                f"pictures; such calls stay as they are ({self._name})"
            )
            return
        for j, (kind, uuid) in enumerate(zip(kinds, options["uuids"], strict=True)):
            if kind in step.lists and uuid in step.positive:
                yield uuid, slice(j * step.batch, (j + 1) * step.batch)

    def warn(self, message: str) -> None:
        """Tell the user, once in a run."""
        if message not in self._told:
            self._told.add(message)
            log.warning(message)
            show_on_running_node(message)

    def _around_run(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE wrapper."""
        outer, self._told = self._told, set()
        try:
            return executor(*args, **kwargs)
        finally:
            self._told = outer

    def _around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper; `executor.class_obj` is the guider. A call that is made for a mask is not edited."""
        how = model_options.get("transformer_options", {}).get(ASIDE, EDITED)
        wanted = self._told is not None and how == EDITED
        outer, self._step = self._step, self.begin(executor.class_obj, x, timestep, model_options) if wanted else None
        try:
            return executor(x, timestep, model_options, *args, **kwargs)
        finally:
            self._step = outer

    def _around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper: find the positive list; another node may evaluate a changed copy of it."""
        if self._step is not None:
            own = list(self._step.positive)
            found = (i for i, each in enumerate(conds) if each and [cond.get("uuid") for cond in each] == own)
            self._step.lists = frozenset(found)
        return executor(model, conds, *args, **kwargs)

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
        """APPLY_MODEL wrapper: edit the attention."""
        network, editing = as_written(executor.class_obj.diffusion_model), None
        if self._step is not None:
            call = EditedCall(len(x), c_crossattn.shape[1], self.warn)
            editing = self.processor(self._step, call, x, c_crossattn, network, transformer_options)
        if editing is None:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        called = NetworkCall(network, x.shape, c_crossattn.shape[1])
        with uncompiled(), processing(transformer_options, self.family, [editing], called) as options:
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        editing.finish(network)
        return out
