"""Abs-Grad-SAM on the host's model: the only place of the pack that leaves inference mode.

Around one call of the network, `Tail` gives the layers behind the last cross-attention float32 copies of their weights,
`Leaf` makes that attention the variable, autograd records from there to the prediction, and a solver of `core` turns
the record into saliency before the call returns. Everything is released when it does, however it ends. The aggregated
variant does the same with all cross-attention layers as variables.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor, nn

from ...core.attention.aggregate import normalise
from ...core.gradients.definition import POLARITIES, Progress
from ...core.maps.saliency import Saliency
from ...core.words.subjects import Subjects
from ..attention.captured import no_attention
from ..attention.layer_choice import single_layers
from ..attention.model_call import OURS, step_of
from ..attention.named_tokens import NamedTokens
from ..attention.override import processing
from ..attention.rows import Positives, Rows, contexts_of
from ..compiled import as_written, uncompiled
from ..families.family import cross_attention_layers, family_of
from ..families.unet_gradients import is_last
from ..one_call import call_once, without_ours
from ..patch_names import replaced_parts
from ..same_prompt import require_same_prompt
from ..ui.running_node import progress_bar
from .float32_layers import Tail
from .foreign_attention import derivable
from .measured_call import MeasuredCall, prediction_scale
from .memory import room_behind
from .precision import full_float32
from .solvers import SOLVERS, STRUCTURED, TOGETHER, Record, aggregated, solve
from .word_variable import Leaf

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "gradients"

ABS_GRAD_SAM, AGGREGATED = DEFINITIONS = ("Abs-Grad-SAM", "aggregated")


class GradientProbe:
    """Measures Abs-Grad-SAM of `subjects` during model calls that are made through `measure`; else it does nothing.

    layer: the cross-attention to derive by, `last` or a name, or several of them separated by commas, which are
    derived one after the other and get maps of their own; the aggregated definition takes all. prompt: the
    subjects' as a CONDITIONING, None for the first positive one. polarity, solver, definition: see
    `gradient_saliency`.
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
    ) -> None:
        for name, value, allowed in (
            ("polarity", polarity, POLARITIES),
            ("solver", solver, SOLVERS),
            ("definition", definition, DEFINITIONS),
        ):
            if value not in allowed:
                raise ValueError(f"{name} {value!r} is not one of {', '.join(allowed)}")
        self._subjects = subjects
        self._named = NamedTokens(tuple(subjects.positions(i) for i in range(len(subjects.items))))
        if not self._named.tokens:
            raise ValueError("there is no subject: name one in 'override' of Parse Subjects")
        self._prompt = None if prompt is None else contexts_of(prompt)
        self._polarity = polarity
        self._solver = solver
        self._spatial_scale = patcher.get_model_object("latent_format").spacial_downscale_ratio
        self._family = family_of(patcher)
        layers = cross_attention_layers(patcher)
        self._layers = layers if definition == AGGREGATED else single_layers(layers, layer)
        self._aggregated = definition == AGGREGATED
        self._measuring = False
        self._progress: Progress | None = None
        self._call: MeasuredCall | None = None
        for kind, wrapper in (
            (WrappersMP.PREPARE_SAMPLING, self._around_loading),
            (WrappersMP.PREDICT_NOISE, self._around_step),
            (WrappersMP.DIFFUSION_MODEL, self._around_network),
        ):
            patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
        require_same_prompt(patcher, subjects, prompt, log.warning)

    def measure(self, call: Callable[[], object], progress: Progress) -> Saliency:
        """Saliency [S,B,C,h,w] of the model call that `call` makes; of several layers one's maps behind the other's.

        progress: called while solving; it may raise to cancel. Raises ValueError when the call showed no attention of
        the subjects, or when the model does not have the structure that the solver needs.
        """
        self._measuring, self._progress = True, progress
        try:
            call()
            done = self._call
        finally:
            self._measuring, self._progress, self._call = False, None, None
        if done is None or not done.pieces:
            raise no_attention(
                self._subjects.labels,
                "in the model call",
                (
                    "the positive conditioning is not active at its noise level (a timestep range)",
                    "another node hides it (see log)",
                ),
            )
        maps = done.framed()
        if self._aggregated:
            maps = normalise(maps.squeeze(2))
        labels = self._subjects.labels
        if self.layers > 1:
            labels = tuple(f"{label}, {layer}" for layer in self._layers for label in labels)
        return Saliency(maps, labels, done.sigma, done.step, done.grid, self._spatial_scale)

    @property
    def layers(self) -> int:
        """How many layers have maps of their own."""
        return 1 if self._aggregated else len(self._layers)

    def _around_loading(
        self, executor: WrapperExecutor, model: ModelPatcher, noise_shape: Sequence[int], *args: Any, **kwargs: Any
    ) -> tuple:
        """PREPARE_SAMPLING wrapper: the host frees and keeps memory for as many latents as the gradients take.

        The exact solver takes more of what is free beyond that, see `Room.fitting`.
        """
        latents, *size = noise_shape
        network = as_written(model.get_model_object("diffusion_model"))
        room = room_behind(network, self._layers[0], tuple(size[-2:]))
        for layer in self._layers[1 : self.layers]:
            room = replace(room, attention=room.attention + room_behind(network, layer, tuple(size[-2:])).attention)
        tokens = len(set().union(*self._named.tokens))
        if self._solver == STRUCTURED and not self._aggregated:
            needed = room.structured(latents, tokens)
        else:
            needed = room.exact(latents, tokens, 1 if self._aggregated else TOGETHER // 4)
        more = math.ceil(needed / model.model.memory_required([1, *size]))
        log.debug("%.0f MB asked for beside the model call", needed / 1024**2)
        return executor(model, [latents + more, *size], *args, **kwargs)

    def _around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: `executor.class_obj` is the guider, which knows the positive conditionings.

        What is measured hangs on these alone, so nothing else is evaluated: no negative and no guidance.
        """
        if not self._measuring or self._call is not None:
            return executor(x, timestep, model_options, *args, **kwargs)
        guider = executor.class_obj
        listed = guider.conds.get("positive") or []
        positives = Positives(listed, self._prompt, log.warning, model_options.get("model_function_wrapper"))
        sigma = float(timestep.flatten()[0])
        scale = prediction_scale(guider.inner_model.model_sampling, timestep)
        step = step_of(sigma, model_options)
        self._call = MeasuredCall(positives, x.shape[0], tuple(x.shape[-2:]), sigma, step, scale)
        # Where the model is split between devices this call runs on its own, all of it.
        options = {name: value for name, value in model_options.items() if name != "multigpu_clones"}
        with uncompiled():
            return comfy.samplers.calc_cond_batch(guider.inner_model, [listed], x, timestep, options)[0]

    def _around_network(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None,
        control: dict | None,
        transformer_options: dict,
        **kwargs: Any,
    ) -> Tensor:
        """DIFFUSION_MODEL wrapper: where rows of this call are the prompt's, record the tail and solve.

        `executor.class_obj` is the network that runs: the host may have copied the model that was patched.
        """
        call, network, rows = self._call, executor.class_obj, []
        if call is not None:
            rows = call.positives.rows(x, context, transformer_options, 0, call.batch, call.grid)
        if not rows:
            return executor(x, timesteps, context, y, control, transformer_options, **kwargs)
        leaf = Leaf(rows, self._named, self._layers)
        with (
            torch.inference_mode(False),
            torch.no_grad(),
            full_float32(),
            Tail(network, self._layers[0], x.device) as tail,
            processing(transformer_options, self._family, [leaf]) as options,
        ):
            out = executor(x, timesteps, context, y, control, options, **kwargs)
            if unseen := [layer for layer in self._layers if layer not in leaf.words]:
                raise ValueError(
                    f"the model's cross-attention {', '.join(unseen)} was not computed where it could be seen, but "
                    f"replaced by {replaced_parts(network)}; connect the model without it"
                )
            with torch.enable_grad(), derivable(transformer_options):
                for i, row in enumerate(rows):
                    prediction = out.float()[row.rows] * call.scale
                    call.pieces.append((self._solve(network, leaf, i, row, tail, prediction, call.scale), row))
            return out.detach()

    def _solve(
        self, network: nn.Module, leaf: Leaf, i: int, row: Rows, tail: Tail, prediction: Tensor, scale: float
    ) -> Tensor:
        """Saliency of the i-th conditioning: [S,B,C,a,b] of one layer after the other, aggregated [S,B,1,a,b]."""
        words = {name: each[i] for name, each in leaf.words.items()}
        if self._aggregated:
            return aggregated(words, leaf.grids, prediction, row.size, self._polarity)
        maps = []
        for layer in self._layers:
            last = is_last(network, layer)
            room = room_behind(network, layer, row.size)
            together = room.fitting(len(prediction), words[layer].change.shape[-1], prediction.device, TOGETHER)
            record = Record(words[layer], tail, prediction, row.rows, scale, layer, last, together)
            maps.append(solve(record, self._solver, self._polarity, self._progress))
        return torch.cat(maps)


def gradient_saliency(
    model: ModelPatcher,
    positive: list,
    latent: dict,
    subjects: Subjects,
    noise_level: float,
    seed: int,
    polarity: str,
    solver: str,
    definition: str = ABS_GRAD_SAM,
    layer: str = "last",
    region: list | None = None,
) -> Saliency:
    """Abs-Grad-SAM [S,B,C,h,w] of the B latents of a LATENT, each noised with the seed's noise to `noise_level`.

    One call of the model on the positive conditioning; LoRA, ControlNet and attention patches take part, guidance does
    not. polarity: absolute or positive. solver: structured or exact. definition: `aggregated` gives [S,B,h,w] instead,
    each summing to 1. layer: as of `GradientProbe`. region: the CONDITIONING of the subjects' prompt where another node
    gives it to a part of the picture. Raises ValueError as `GradientProbe` does.
    """
    patcher = without_ours(model)
    probe = GradientProbe(patcher, subjects, polarity, solver, definition, layer, region)
    saliency = probe.measure(lambda: call_once(patcher, positive, latent, noise_level, seed), progress_bar())
    return replace(saliency, maps=saliency.maps.cpu(), step=None)
