"""A model call beside the sampler's own, on the prompt's positive conditionings alone, of which gradients are taken.

What all such measurements share: the host is asked for their memory before it loads the model, neither the negative nor
guidance is evaluated, and the prompt's rows are found in each call of the network.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import comfy.samplers
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn

from ...core.words.subjects import Subjects
from ..attention.model_call import ModelCall, prediction_scale, step_of
from ..attention.positives import Positives, PromptRows, contexts_of
from ..compiled import as_written, uncompiled
from ..families.family import Family
from ..families.sites import NetworkCall
from ..same_prompt import SampledPrompt, require_same_prompt
from .memory_request import asking_for

log = logging.getLogger("explainable_latents")


@dataclass(frozen=True)
class Evaluation:
    """A call of the network that holds rows of the prompt, before it is made.

    rows: of the prompt. model: the host's, which may be a copy of the one that was patched. x, t: the state [R,C,h,w]
    and noise levels [R] of all rows. context: their text. control: of ControlNets. options: the transformer options.
    make: runs the network, `make(x, t, options)`.
    """

    rows: list[PromptRows]
    model: Any
    x: Tensor
    t: Tensor
    context: Tensor
    control: dict | None
    options: dict
    make: Callable[[Tensor, Tensor, dict], Tensor]

    @property
    def network(self) -> nn.Module:
        """The model's network, as written."""
        return as_written(self.model.diffusion_model)

    @property
    def called(self) -> NetworkCall:
        """What the network is called with."""
        return NetworkCall(self.network, self.x.shape, self.context.shape[1])


class Measurement:
    """Installed on a model, it measures while `measuring`, and does nothing else.

    key: of its wrappers. prompt: the subjects' as a CONDITIONING, None for the first positive one. A subclass says what
    is measured. While a call is measured: call: what is known of it; scale: d z / d output of its prediction z; plain:
    the bytes that the call itself takes for each latent; model_options: the sampler's.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        key: str,
        family: Family,
        subjects: Subjects,
        prompt: Sequence[Sequence[Any]] | None,
    ) -> None:
        self.family = family
        self.call: ModelCall | None = None
        self.scale, self.plain = 1.0, 0.0
        self.model_options: dict = {}
        self._prompt = None if prompt is None else contexts_of(prompt)
        self._sampled = SampledPrompt()
        self._measuring = False
        for kind, wrapper in (
            (WrappersMP.PREPARE_SAMPLING, asking_for(self.bytes_needed)),
            (WrappersMP.PREDICT_NOISE, self.around_step),
            (WrappersMP.APPLY_MODEL, self._around_model),
        ):
            patcher.add_wrapper_with_key(kind, key, wrapper)
        require_same_prompt(patcher, subjects, prompt, log.warning, self._sampled)

    def bytes_needed(self, model: ModelPatcher, count: int, grid: tuple[int, int], room: float) -> float:
        """The memory for `count` latents of (h, w) beside the call itself. room: what the device has beside that."""
        raise NotImplementedError

    def evaluated(self, run: Evaluation) -> Tensor:
        """Make this call of the network, and measure."""
        raise NotImplementedError

    @contextmanager
    def measuring(self) -> Iterator[None]:
        """Inside the block the first model call is measured."""
        self._measuring = True
        try:
            yield
        finally:
            self._measuring, self.call, self.model_options = False, None, {}

    def evaluate(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> Tensor:
        """Evaluate the positive conditionings alone, while `measuring`; their prediction.

        What is measured depends on these alone. guider: the host's, which knows them.
        """
        listed = guider.conds.get("positive") or []
        how = log.warning, model_options, self.family.pads_in_front
        positives = Positives(listed, self._prompt, *how, pictures=self._sampled.pictures)
        sigma = float(timestep.flatten()[0])
        self.scale = prediction_scale(guider.inner_model.model_sampling, timestep)
        self.plain = guider.inner_model.memory_required([1, *x.shape[1:]])
        self.call = ModelCall(positives, len(x), tuple(x.shape[-2:]), x.device, sigma, step_of(sigma, model_options))
        self.model_options = model_options
        with uncompiled():
            options = without_splitting(model_options)
            return comfy.samplers.calc_cond_batch(guider.inner_model, [listed], x, timestep, options)[0]

    def around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: while measuring, `evaluate` the first call; `executor.class_obj` is the guider."""
        if not self._measuring or self.call is not None:
            return executor(x, timestep, model_options, *args, **kwargs)
        return self.evaluate(executor.class_obj, x, timestep, model_options)

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
        """APPLY_MODEL wrapper: measure if rows of this call belong to the prompt."""

        def make(x: Tensor, t: Tensor, options: dict) -> Tensor:
            return executor(x, t, c_concat, c_crossattn, control, options, **conds)

        call, rows = self.call, []
        if call is not None:
            rows = call.positives.rows(x, c_crossattn, transformer_options, 0, call.batch, call.grid)
        if not rows:
            return make(x, t, transformer_options)
        # the host may have copied the model that was patched
        model = executor.class_obj
        return self.evaluated(Evaluation(rows, model, x, t, c_crossattn, control, transformer_options, make))


def without_splitting(model_options: dict) -> dict:
    """The sampler's options with which a call runs on one device, if the model is split between several."""
    return {name: value for name, value in model_options.items() if name != "multigpu_clones"}
