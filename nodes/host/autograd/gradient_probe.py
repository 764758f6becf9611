"""Abs-Grad-SAM on the host's model, during one call of it.

After the last cross-attention the network is made `differentiable`, the words' probabilities there become a
`word_variable`, autograd records from them to the prediction, and a solver of `core` turns that into saliency before
the call returns. Everything is released when it ends, even by an error. The aggregated variant takes all layers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn

from ...core.attention.aggregate import normalise
from ...core.attention.refine import AUTO
from ...core.gradients.definition import (
    ABS_GRAD_SAM,
    AGGREGATED,
    EXACT,
    Progress,
    WordAttention,
    aggregated,
    check_choices,
)
from ...core.maps.saliency import Saliency
from ...core.words.subjects import Subjects
from ..attention.layer_choice import single_layers
from ..attention.model_call import OURS, ModelCall, no_attention, prediction_scale, step_of
from ..attention.named_tokens import NamedTokens
from ..attention.override import processing
from ..attention.positives import Positives, PromptRows, contexts_of
from ..attention.refinement import Refinement, refine_plan
from ..compiled import as_written, uncompiled
from ..families.family import cross_attention_layers, family_of, network_of
from ..families.gradient_memory import GradientMemory
from ..families.offers import GRADIENTS
from ..families.sites import NetworkCall
from ..same_prompt import SampledPrompt, require_same_prompt
from .differentiable import RecordedLayers, differentiable
from .exact_solver import TOGETHER, UnfitError, does_not_fit, exact
from .recorded_end import RecordedEnd
from .word_variable import WordVariable

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "gradients"


class GradientProbe:
    """Measures Abs-Grad-SAM of `subjects` during model calls that are made through `measure`; else it does nothing.

    layer: the cross-attention to differentiate with respect to, `last` or a name, or several of them separated by
    commas, which are taken one after the other and get maps of their own; the aggregated definition takes all. prompt:
    the subjects' as a CONDITIONING, None for the first positive one. polarity, solver, definition: see
    `gradient_saliency`. refine, refine_layers: see `refine_plan`.
    """

    def __init__(
        self,
        patcher: ModelPatcher,
        subjects: Subjects,
        polarity: str,
        solver: str,
        definition: str = ABS_GRAD_SAM,
        layer: str = "last",
        prompt: Sequence[Sequence[Any]] | None = None,
        refine: int = 0,
        refine_layers: str = AUTO,
    ) -> None:
        check_choices(polarity, solver, definition)
        self._subjects = subjects
        self._named = NamedTokens(subjects.positions())
        self._distinct = len(set().union(*self._named.tokens))
        if not self._named.tokens:
            raise ValueError("there is no subject: name one in 'override' of Parse Subjects or Prompt with Words")
        self._prompt = None if prompt is None else contexts_of(prompt)
        self._polarity, self._solver = polarity, solver
        self._spatial_scale = patcher.get_model_object("latent_format").spacial_downscale_ratio
        self._family = family_of(patcher, GRADIENTS)
        layers = cross_attention_layers(patcher)
        self._layers = layers if definition == AGGREGATED else single_layers(layers, layer)
        self._aggregated, self._measuring, self._sampled = definition == AGGREGATED, False, SampledPrompt()
        self._family.layers_after(network_of(patcher), None if self._aggregated else self._layers[0])
        self._refine = refine_plan(patcher, refine, refine_layers)
        self._progress: Progress | None = None
        self._call: ModelCall | None = None
        self._scale, self._plain = 1.0, 0.0  # d z / d output; bytes that the call itself takes for each latent
        for kind, wrapper in (
            (WrappersMP.PREPARE_SAMPLING, self._around_loading),
            (WrappersMP.PREDICT_NOISE, self._around_step),
            (WrappersMP.APPLY_MODEL, self._around_model),
        ):
            patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
        require_same_prompt(patcher, subjects, prompt, log.warning, self._sampled)

    def measure(self, call: Callable[[], object], progress: Progress) -> Saliency:
        """Saliency [S,B,C,h,w] of the model call that `call` makes; of several layers, one's maps after another's.

        progress: called while solving; it may raise to cancel. Raises ValueError when the call showed no attention of
        the subjects, or when the model does not have the structure that the solver needs.
        """
        self._measuring, self._progress = True, progress
        try:
            call()
            done = self._call
        finally:
            self._measuring, self._progress, self._call = False, None, None
        labels = self._subjects.labels
        if done is None or not done.maps:
            inactive = "the positive conditioning is not active at its noise level (a timestep range)"
            raise no_attention(labels, "in the model call", (inactive, "another node hides it (see log)"))
        found = done.layers()
        if self._aggregated:
            maps = normalise(found[AGGREGATED])
        else:
            maps = torch.cat([each.unflatten(0, (len(labels), -1)).transpose(1, 2) for each in found.values()])
        if self.layers > 1:
            labels = tuple(f"{label}, {layer}" for layer in found for label in labels)
        return Saliency(maps, labels, done.sigma, done.step, done.grid, self._spatial_scale)

    @property
    def layers(self) -> int:
        """How many layers have maps of their own."""
        return 1 if self._aggregated else len(self._layers)

    def _around_loading(
        self, executor: WrapperExecutor, model: ModelPatcher, noise_shape: Sequence[int], *args: Any, **kwargs: Any
    ) -> tuple:
        """PREPARE_SAMPLING wrapper: ask the host to reserve memory, counted in latents, for the gradients.

        The exact solver uses more if more is free, see `GradientMemory.fitting`; the aggregated definition
        repeats blocks if the device has less, see `differentiable`.
        """
        latents, *size = noise_shape
        plain = model.model.memory_required([1, *size])
        count = latents * math.prod(size[1:-2])  # with their frames
        memory = self._memory(as_written(model.get_model_object("diffusion_model")), tuple(size[-2:]))
        if self._aggregated:
            total = comfy.model_management.get_total_memory(model.load_device)
            needed = memory.once(count, self._distinct)
            if needed > total - latents * plain - model.model_size():
                needed = memory.once(count, self._distinct, repeat=True)
        elif self._solver == EXACT:
            needed = memory.exact(count, self._distinct, TOGETHER // 4)
        else:
            needed = memory.structured(count, self._distinct)
        log.debug("%.0f MB asked for beside the model call", needed / 1024**2)
        return executor(model, [latents + math.ceil(needed / plain), *size], *args, **kwargs)

    def _memory(self, network: nn.Module, grid: tuple[int, int]) -> GradientMemory:
        """The memory of what follows the first layer; attention counts for all layers that have their own maps."""
        each = [self._family.layers_after(network, layer).memory(grid) for layer in self._layers[: self.layers]]
        return replace(each[0], attention=sum(one.attention for one in each))

    def _around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: `executor.class_obj` is the guider, which knows the positive conditionings.

        What is measured depends on these alone, so nothing else is evaluated: no negative and no guidance.
        """
        if not self._measuring or self._call is not None:
            return executor(x, timestep, model_options, *args, **kwargs)
        guider = executor.class_obj
        listed = guider.conds.get("positive") or []
        how = log.warning, model_options, self._family.pads_in_front
        positives = Positives(listed, self._prompt, *how, pictures=self._sampled.pictures)
        sigma = float(timestep.flatten()[0])
        self._scale = prediction_scale(guider.inner_model.model_sampling, timestep)
        self._plain = guider.inner_model.memory_required([1, *x.shape[1:]])
        self._call = ModelCall(positives, len(x), tuple(x.shape[-2:]), x.device, sigma, step_of(sigma, model_options))
        # If the model is split between devices, this whole call runs on one.
        options = {name: value for name, value in model_options.items() if name != "multigpu_clones"}
        with uncompiled():
            return comfy.samplers.calc_cond_batch(guider.inner_model, [listed], x, timestep, options)[0]

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
        """APPLY_MODEL wrapper: if rows of this call belong to the prompt, record what follows and solve.

        `executor.class_obj` is the model that runs: the host may have copied the one that was patched.
        """
        call, rows = self._call, []
        if call is not None:
            rows = call.positives.rows(x, c_crossattn, transformer_options, 0, call.batch, call.grid)
        if not rows:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        network = as_written(executor.class_obj.diffusion_model)
        variable, first, repeat = WordVariable(rows, self._named, self._layers, self._scale), self._layers[0], False
        if self._aggregated:
            needed = self._memory(network, tuple(x.shape[-2:])).once(len(x), self._distinct) + len(x) * self._plain
            first, repeat = None, needed > comfy.model_management.get_free_memory(x.device)
        layers, refinement = self._family.layers_after(network, first), Refinement(len(x), rows, self._refine)
        found, called = [], NetworkCall(network, x.shape, c_crossattn.shape[1])
        with (
            differentiable(layers, x.device, transformer_options, repeat=repeat) as recorded,
            processing(transformer_options, self._family, [variable, refinement], called) as options,
        ):
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
            variable.require_all(network)
            refinement.finish(network)
            with torch.enable_grad():
                for i, row in enumerate(rows):
                    words = {layer: each[i] for layer, each in variable.words.items()}
                    prediction = recorded.output.float()[row.rows] * self._scale
                    if self._aggregated:
                        maps = {AGGREGATED: aggregated(words, variable.grids, prediction, row.size, self._polarity)}
                    else:
                        maps = {layer: self.solve(recorded, layer, words[layer], prediction, row) for layer in words}
                    found.append(maps)
        for name in found[0]:
            refined = refinement.refined([maps[name] for maps in found], self._subjects.labels, log.warning)
            call.maps.setdefault(name, []).extend(refined)
        return out

    def solve(
        self, recorded: RecordedLayers | RecordedEnd, layer: str, words: WordAttention, z: Tensor, row: PromptRows
    ) -> Tensor:
        """Saliency of one conditioning and one layer, with the channels beside the subjects: [S*C,B,a,b].

        Raises ValueError if the structured solver does not fit the model; it states the exact solver's time.
        """
        if self._solver == EXACT:
            memory = self._family.layers_after(recorded.network, layer).memory(row.size)
            together = memory.fitting(len(z), words.change.shape[-1], z.device, TOGETHER)
            maps = exact(words, z, self._polarity, together, self._progress)
        else:
            try:
                maps = recorded.structured(layer, row.rows, words, z, self._scale, self._polarity, self._progress)
            except UnfitError as reason:
                raise does_not_fit(reason, words, z, self._polarity, self._progress) from reason
        return maps.transpose(1, 2).flatten(0, 1)
