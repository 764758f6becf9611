"""Abs-Grad-SAM on the host's model, during one call of it.

After the last cross-attention the network is made `differentiable`, the words' probabilities there become a
`word_variable`, autograd records from them to the prediction, and a solver of `core` turns that into saliency before
the call returns. Everything is released when it ends, even by an error. The aggregated variant takes all layers.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from comfy.model_patcher import ModelPatcher
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
from ..attention.model_call import OURS, Refined, no_attention
from ..attention.named_tokens import NamedTokens
from ..attention.override import processing
from ..attention.positives import PromptRows
from ..attention.refinement import Refinement, refine_plan
from ..compiled import as_written
from ..families.family import cross_attention_layers, family_of, network_of
from ..families.gradient_memory import GradientMemory
from ..families.offers import GRADIENTS
from .differentiable import RecordedLayers, differentiable
from .exact_solver import TOGETHER, UnfitError, does_not_fit, exact
from .measurement import Evaluation, Measurement
from .recorded_end import RecordedEnd
from .word_variable import WordVariable

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "gradients"


class GradientProbe(Measurement):
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
        self._polarity, self._solver = polarity, solver
        self._spatial_scale = patcher.get_model_object("latent_format").spacial_downscale_ratio
        family, layers = family_of(patcher, GRADIENTS), cross_attention_layers(patcher)
        self._layers = layers if definition == AGGREGATED else single_layers(layers, layer)
        self._aggregated = definition == AGGREGATED
        family.layers_after(network_of(patcher), None if self._aggregated else self._layers[0])
        self._refine = refine_plan(patcher, refine, refine_layers)
        self._progress: Progress | None = None
        super().__init__(patcher, WRAPPER_KEY, family, subjects, prompt)

    def measure(self, call: Callable[[], object], progress: Progress) -> Saliency:
        """Saliency [S,B,C,h,w] of the model call that `call` makes; of several layers, one's maps after another's.

        progress: called while solving; it may raise to cancel. Raises ValueError when the call showed no attention of
        the subjects, or when the model does not have the structure that the solver needs.
        """
        self._progress = progress
        try:
            with self.measuring():
                call()
                done = self.call
        finally:
            self._progress = None
        labels = self._subjects.labels
        if done is None or not done.maps:
            inactive = "the positive conditioning is not active at its noise level (a timestep range)"
            raise no_attention(labels, "in the model call", (inactive, "another node hides it (see log)"))
        found, power = done.layers(), self._refine.power
        layers = [layer for layer in found if not isinstance(layer, Refined)]
        *less, maps = (
            self._together([found[Refined(i, layer) if i else layer] for layer in layers]) for i in range(power + 1)
        )
        if self.layers > 1:
            labels = tuple(f"{label}, {layer}" for layer in layers for label in labels)
        return Saliency(maps, labels, done.sigma, done.step, done.grid, self._spatial_scale, power, tuple(less))

    def _together(self, layers: Sequence[Tensor]) -> Tensor:
        """The maps as a saliency has them, from those [S*C,B,h,w] of each layer, or [S,B,h,w] of all together."""
        if self._aggregated:
            return normalise(layers[0])
        words = len(self._subjects.labels)
        return torch.cat([each.unflatten(0, (words, -1)).transpose(1, 2) for each in layers])

    @property
    def layers(self) -> int:
        """How many layers have maps of their own."""
        return 1 if self._aggregated else len(self._layers)

    def bytes_needed(self, model: ModelPatcher, count: int, grid: tuple[int, int], room: float) -> float:
        """See `Measurement`.

        The exact solver uses more if more is free, see `GradientMemory.fitting`; the aggregated definition repeats
        blocks if the device has less, see `differentiable`.
        """
        memory = self._memory(as_written(model.get_model_object("diffusion_model")), grid)
        if self._aggregated:
            needed = memory.once(count, self._distinct)
            return needed if needed <= room else memory.once(count, self._distinct, repeat=True)
        if self._solver == EXACT:
            return memory.exact(count, self._distinct, TOGETHER // 4)
        return memory.structured(count, self._distinct)

    def _memory(self, network: nn.Module, grid: tuple[int, int]) -> GradientMemory:
        """The memory of what follows the first layer; attention counts for all layers that have their own maps."""
        each = [self.family.layers_after(network, layer).memory(grid) for layer in self._layers[: self.layers]]
        return replace(each[0], attention=sum(one.attention for one in each))

    def evaluated(self, run: Evaluation) -> Tensor:
        """See `Measurement`: record what follows the words' attention, and solve."""
        rows, network, count = run.rows, run.network, len(run.x)
        variable, first, repeat = WordVariable(rows, self._named, self._layers, self.scale), self._layers[0], False
        if self._aggregated:
            needed = self._memory(network, tuple(run.x.shape[-2:])).once(count, self._distinct) + count * self.plain
            first, repeat = None, needed > comfy.model_management.get_free_memory(run.x.device)
        layers, refinement = self.family.layers_after(network, first), Refinement(count, rows, self._refine)
        found = []
        with (
            differentiable(layers, run.x.device, run.options, repeat=repeat) as recorded,
            processing(run.options, self.family, [variable, refinement], run.called) as options,
        ):
            out = run.make(run.x, run.t, options)
            variable.require_all(network)
            refinement.finish(network)
            with torch.enable_grad():
                for i, row in enumerate(rows):
                    words = {layer: each[i] for layer, each in variable.words.items()}
                    prediction = recorded.output.float()[row.rows] * self.scale
                    if self._aggregated:
                        maps = {AGGREGATED: aggregated(words, variable.grids, prediction, row.size, self._polarity)}
                    else:
                        maps = {layer: self.solve(recorded, layer, words[layer], prediction, row) for layer in words}
                    found.append(maps)
        for name in found[0]:
            plain = [maps[name] for maps in found]
            self.call.maps.setdefault(name, []).extend(zip(plain, rows, strict=True))
            for power, refined in enumerate(refinement.refined(plain, self._subjects.labels, log.warning), start=1):
                self.call.maps.setdefault(Refined(power, name), []).extend(refined)
        return out

    def solve(
        self, recorded: RecordedLayers | RecordedEnd, layer: str, words: WordAttention, z: Tensor, row: PromptRows
    ) -> Tensor:
        """Saliency of one conditioning and one layer, with the channels beside the subjects: [S*C,B,a,b].

        Raises ValueError if the structured solver does not fit the model; it states the exact solver's time.
        """
        if self._solver == EXACT:
            memory = self.family.layers_after(recorded.network, layer).memory(row.size)
            together = memory.fitting(len(z), words.change.shape[-1], z.device, TOGETHER)
            maps = exact(words, z, self._polarity, together, self._progress)
        else:
            try:
                maps = recorded.structured(layer, row.rows, words, z, self.scale, self._polarity, self._progress)
            except UnfitError as reason:
                raise does_not_fit(reason, words, z, self._polarity, self._progress) from reason
        return maps.transpose(1, 2).flatten(0, 1)
