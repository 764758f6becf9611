"""Record a model's cross-attention while any sampler runs it, without changing what it computes.

Everything is installed through the host's wrappers, which run at these moments:

  OUTER_SAMPLE     one sampler run begins and ends
  PREDICT_NOISE    one model call of the sampler: its positive conditionings, latent grid and noise level
  CALC_COND_BATCH  the host's evaluation of it; further evaluations (guidance by perturbed copies) are not captured
  APPLY_MODEL      the network itself: a `recorder.Recorder` reads its cross-attention
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from comfy.patcher_extension import WrapperExecutor
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from torch import Tensor

from ...core.attention.aggregate import added, on_latent
from ...core.attention.output_space import OUTPUT
from ...core.maps.saliency import Saliency
from ...core.words.subjects import Subjects
from ..compiled import as_written, hidden_by_compilation
from ..families.family import Family
from ..families.sites import NetworkCall
from ..same_prompt import SampledPrompt
from ..sampling.runs import Runs
from .captured_run import CapturedRun, every_power
from .layer_choice import LayerSelection
from .looked_for import LookedFor, LookedForMaps
from .model_call import ASIDE, EXCHANGED, ModelCall, Refined, evaluating, step_of
from .named_tokens import NamedTokens
from .override import processing
from .positives import Positives
from .recorder import Recorder
from .refinement import Refinement, RefinePlan

log = logging.getLogger("explainable_latents")


@dataclass(frozen=True)
class Settings:
    """What to capture.

    tokens: of the subjects' prompt. prompt: contexts [1,T,d] the tokens belong to, None for the first positive
    conditioning's. start, end: percent of the noise schedule, 0 at pure noise. resize: see `aggregate.resize`.
    refine: see `RefinePlan`. looked: further words, whose maps come after those of the subjects; their tokens that
    stand in the prompt come last in `tokens`. space: see `Recorder`. block: whose attention is captured in a twin run.
    sampled: what the sampler has found out about its prompt.
    """

    tokens: NamedTokens
    prompt: list[Tensor] | None
    layers: LayerSelection
    start: float
    end: float
    resize: str
    refine: RefinePlan
    looked: LookedFor | None
    space: str
    block: str
    sampled: SampledPrompt

    @property
    def scores(self) -> int:
        """How many of the maps are scores, see `normalise`."""
        if self.space == OUTPUT:
            return len(self.tokens.tokens)
        return 0 if self.looked is None else self.looked.scores


class Observer:
    """What is installed on an observed model.

    runs: what was captured. subjects: whose attention is captured. labels: of all maps. resize, scores: see `Settings`.
    The handle (`AttentionCapture`) refers to the observer, not the other way round: patched models live longer than it.
    """

    def __init__(self, subjects: Subjects, family: Family, settings: Settings, keep: bool, add_up: bool) -> None:
        self.subjects = subjects
        self.labels = subjects.labels if settings.looked is None else (*subjects.labels, *settings.looked.labels)
        self.runs: Runs[CapturedRun] = Runs(CapturedRun, "capture", "Capture Attention", keep)
        self._adds = keep or add_up
        self.resize = settings.resize
        self._family = family
        self._settings = settings
        self._call: ModelCall | None = None
        self._asking = False
        self._answer: Saliency | None = None

    @property
    def scores(self) -> int:
        """See `Settings`."""
        return self._settings.scores

    @contextmanager
    def reading(self, subjects: Subjects, prompt: list[Tensor]) -> Iterator[None]:
        """Inside the block these words of another prompt are read at any noise level, and none is looked for.

        prompt: its contexts [1,T,d].
        """
        settings, labels = self._settings, self.labels
        words = None if settings.tokens.words is None else subjects.word_positions()
        tokens = replace(settings.tokens, tokens=subjects.positions(), words=words)
        self._settings = replace(settings, tokens=tokens, prompt=prompt, start=0.0, end=1.0, looked=None)
        self.labels = subjects.labels
        try:
            yield
        finally:
            self._settings, self.labels = settings, labels

    def ask(self, predict: Callable[[], object]) -> Saliency | None:
        """The maps of the one model call that `predict` makes between the sampler's steps; None if it has none."""
        self._asking, self._answer = True, None
        try:
            predict()
            return self._answer
        finally:
            self._asking, self._answer = False, None

    def around_run(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE wrapper, see `Runs.around`."""
        return self.runs.around(executor, *args, **kwargs)

    def around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: `executor.class_obj` is the guider, which knows the positive conditionings.

        A call that is not a step of the sampler counts only for the one that asked for it.
        """
        run = self.runs.current
        beside = ASIDE in model_options.get("transformer_options", {})
        if run is None or (beside and not self._asking):
            return executor(x, timestep, model_options, *args, **kwargs)
        wanted = beside or run.capturing
        call = self._begin(executor.class_obj, x, timestep, model_options) if wanted else None
        outer, self._call = self._call, call
        try:
            out = executor(x, timestep, model_options, *args, **kwargs)
        finally:
            self._call = outer
        found, layers, grids = None, {}, {}
        if call is not None and call.maps:
            layers, grids = call.layers(), call.grids if call.whole else {}
            power = self._settings.refine.power
            *less, maps = every_power(layers.items(), power, call.grid, self.resize, self.scores)
            scale = executor.class_obj.inner_model.latent_format.spacial_downscale_ratio
            found = Saliency(maps, self.labels, call.sigma, call.step, call.grid, scale, power, tuple(less))
        if beside:
            self._answer = found
        elif self._adds:
            run.see(found, layers, grids)
        else:
            run.last = found
        return out

    def around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper: find the positive list among `conds`; another's own evaluation does not count."""
        # the last argument, which another node may hand on by name
        options = kwargs["model_options"] if "model_options" in kwargs else args[-1]
        beside = ASIDE in options.get("transformer_options", {}) and not self._asking
        with evaluating(None if beside else self._call, conds):
            return executor(model, conds, *args, **kwargs)

    def around_model(
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
        """APPLY_MODEL wrapper: record the attention if rows of this call belong to the prompt."""
        call, settings, rows = self._call, self._settings, []
        if call is not None and call.index is not None:
            rows = call.positives.rows(x, c_crossattn, transformer_options, call.index, call.batch, call.grid)
        if not rows:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        network = as_written(executor.class_obj.diffusion_model)
        looked = settings.looked and LookedForMaps(settings.looked, self._family.key_layers(network), c_crossattn)
        how = {"chosen": settings.prompt is not None, "looked": looked, "space": settings.space}
        names = self._family.site_names(network, self._family.text_kind)
        recorder = Recorder(rows, settings.tokens, settings.layers, self._warn, names=names, **how)
        refinement = Refinement(len(x), rows, settings.refine)
        called = NetworkCall(network, x.shape, c_crossattn.shape[1])
        with processing(transformer_options, self._family, [recorder, refinement], called) as options:
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        recorder.finish(network)
        found = {name: list(zip(maps, rows, strict=True)) for name, maps in recorder.maps.items()}
        if settings.refine.power and recorder.maps:
            refinement.finish(network)
            by_row = zip(rows, *recorder.maps.values(), strict=True)
            # places that stand for a patch of the latent are refined before they are spread over it
            sums = [
                added(maps, maps[0].shape[-2:] if recorder.patch else row.size, self.resize) for row, *maps in by_row
            ]
            for power, refined in enumerate(refinement.refined(sums, self.labels, self._warn), start=1):
                found[Refined(power)] = refined
        call.grids |= recorder.grids
        for name, each in found.items():
            placed = [(on_latent(maps, recorder.patch, row.size), row) for maps, row in each]
            call.maps.setdefault(name, []).extend(placed)
        return out

    def _begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> ModelCall | None:
        """The model call at this noise level, None when it is not to be captured."""
        sigma = float(timestep.flatten()[0])
        sampling = guider.inner_model.model_sampling
        start, end = (
            float(sampling.percent_to_sigma(percent)) for percent in (self._settings.start, self._settings.end)
        )
        if not end <= sigma <= start:
            return None
        listed, settings = guider.conds.get("positive") or [], self._settings
        if settings.prompt is None and any(EXCHANGED in cond for cond in listed):
            self._warn(
                "the prompt was exchanged while the sampler paused: from there on no attention is captured to the "
                "words of the first one"
            )
            return None
        how = self._warn, model_options, self._family.pads_in_front, settings.block, settings.sampled.pictures
        positives = Positives(listed, settings.prompt, *how)
        if not positives:
            return None
        if TORCH_COMPILE_KWARGS in model_options:
            self._warn(hidden_by_compilation())
        return ModelCall(positives, x.shape[0], tuple(x.shape[-2:]), x.device, sigma, step_of(sigma, model_options))

    def _warn(self, message: str) -> None:
        """Log a warning once per run, not once per layer and step."""
        notes = self.runs.current.notes
        if message not in notes:
            notes.append(message)
            log.warning(message)
