"""Watch a model's cross-attention while any sampler runs it, without changing what it computes.

Everything is installed through the host's wrappers, at the moment the model is called:

  OUTER_SAMPLE     one sampler run begins and ends
  PREDICT_NOISE    one model call of the sampler: its positive conditionings, latent grid and noise level
  CALC_COND_BATCH  the host's evaluation of it; further evaluations (guidance by perturbed copies) are not captured
  APPLY_MODEL      the network itself: a `recorder.Recorder` looks on at its cross-attention
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from comfy_api.torch_helpers.torch_compile import TORCH_COMPILE_KWARGS
from torch import Tensor

from ...core.attention.aggregate import RESIZE_MODES, aggregate, normalise
from ...core.attention.refine import MOST_POWERS
from ...core.choices import one_of
from ...core.maps.saliency import Saliency
from ...core.words.subjects import Subjects
from ..compiled import as_written, hidden_by_compilation, uncompiled
from ..families.family import Family, cross_attention_layers, family_of
from ..families.sites import SELF
from ..same_prompt import require_same_prompt
from ..sampling.runs import Runs
from .captured import AttentionCapture, CapturedRun
from .layer_choice import LayerSelection, select_layers
from .model_call import ASIDE, OURS, ModelCall, evaluating, step_of
from .named_tokens import NamedTokens
from .override import processing
from .recorder import Recorder
from .refinement import Refinement
from .rows import Positives, contexts_of

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "attention"

SHARES = ("all tokens", "prompt words")


@dataclass(frozen=True)
class Settings:
    """What to capture.

    tokens: of the subjects' prompt. prompt: contexts [1,T,d] the tokens belong to, None for the first positive
    conditioning's. start, end: percent of the noise schedule, 0 at pure noise. resize: see `core.attention.resize`.
    refine: how often maps are refined, see `core.attention.refine`.
    """

    tokens: NamedTokens
    prompt: list[Tensor] | None
    layers: LayerSelection
    start: float
    end: float
    resize: str
    refine: int


class Observer:
    """What is installed on an observed model.

    runs: what was seen. subjects: whose attention. resize: see `Settings`.
    The handle (`AttentionCapture`) knows it, it does not know the handle: patched models live longer.
    """

    def __init__(self, subjects: Subjects, family: Family, settings: Settings, keep: bool, add_up: bool) -> None:
        self.subjects = subjects
        self.runs: Runs[CapturedRun] = Runs(CapturedRun, "capture", "Capture Attention", keep)
        self._adds = keep or add_up
        self.resize = settings.resize
        self._family = family
        self._settings = settings
        self._call: ModelCall | None = None
        self._asking = False
        self._answer: Saliency | None = None

    def ask(self, predict: Callable[[], object]) -> Saliency | None:
        """The map of the one model call that `predict` makes beside the sampler's steps; None when it has none."""
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

        Calls that are no step of the sampler count for nobody but the one who asked for them.
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
        found, layers, refined = None, {}, None
        if call is not None and call.pieces:
            layers = call.layers()
            refined = call.total()
            maps = aggregate(list(layers.values()), call.grid, self.resize) if refined is None else normalise(refined)
            scale = executor.class_obj.inner_model.latent_format.spacial_downscale_ratio
            found = Saliency(maps, self.subjects.labels, call.sigma, call.step, call.grid, scale)
        if beside:
            self._answer = found
        elif self._adds:
            run.see(found, layers, refined)
        else:
            run.last = found
        return out

    def around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper: find the positive list among `conds`."""
        with evaluating(self._call, conds):
            captured = self._call is not None and self._call.index is not None
            with uncompiled() if captured else nullcontext():
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
        """APPLY_MODEL wrapper: look on at the attention where rows of this call are the prompt's."""
        call, settings, rows = self._call, self._settings, []
        if call is not None and call.index is not None:
            rows = call.positives.rows(x, c_crossattn, transformer_options, call.index, call.batch, call.grid)
        if not rows:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        recorder = Recorder(rows, settings.tokens, settings.layers, self._warn, chosen=settings.prompt is not None)
        processors, network = [recorder], as_written(executor.class_obj.diffusion_model)
        if settings.refine:
            names = self._family.site_names(network, SELF)
            refinement = Refinement(len(x), rows, settings.refine, names, self.subjects.labels, self._warn)
            processors.append(refinement)
        with processing(transformer_options, self._family, processors) as options:
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        recorder.finish(network)
        for name, maps in recorder.maps.items():
            call.pieces.setdefault(name, []).extend(zip(maps, rows, strict=True))
        if settings.refine and recorder.maps:
            call.refined += refinement.refined(recorder.maps, self.resize, network)
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
        listed, wrapper = guider.conds.get("positive") or [], model_options.get("model_function_wrapper")
        positives = Positives(listed, self._settings.prompt, self._warn, wrapper)
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


def observe(
    patcher: ModelPatcher,
    subjects: Subjects,
    *,
    layers: str = "all",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
    positive: list | None = None,
    resize: str = "nearest",
    share: str = "all tokens",
    refine: int = 0,
    keep: bool = True,
    add_up: bool = False,
) -> AttentionCapture:
    """Observe the cross-attention of `patcher` (changed in place: pass a clone) for `subjects`.

    layers: see `layers.select_layers`. start_percent, end_percent: the part of the noise schedule that is captured, 0
    at pure noise. positive: the CONDITIONING of the subjects' prompt, needed only where several different prompts are
    combined. resize: nearest or bilinear. share: `all tokens` gives the plain probability (begin-of-text and padding
    keep their share), `prompt words` the probability renormalised over the prompt's own tokens. refine: how often maps
    are refined by self-attention, from 0 to 8, see `core.attention.refine`. keep: all maps, to be read after a run, or
    only the last one while it goes on; add_up: then their sums, too.

    Raises ValueError for a model without readable cross-attention, an unknown layer or option, an empty range, or
    subjects without tokens.
    """
    if not 0.0 <= start_percent < end_percent <= 1.0:
        raise ValueError(
            f"start_percent {start_percent} and end_percent {end_percent} must satisfy 0 <= start_percent < "
            f"end_percent <= 1"
        )
    one_of("resize", resize, RESIZE_MODES)
    one_of("share", share, SHARES)
    if not 0 <= refine <= MOST_POWERS:
        raise ValueError(f"refine {refine} is not a whole number from 0 to {MOST_POWERS}")
    tokens = subjects.positions()
    if not tokens:
        raise ValueError("there is no subject to capture: name one in 'override' of Parse Subjects")
    words = None if share == SHARES[0] else subjects.word_positions()
    prompt = None if positive is None else contexts_of(positive)
    selection = select_layers(cross_attention_layers(patcher), layers)
    settings = Settings(NamedTokens(tokens, words), prompt, selection, start_percent, end_percent, resize, refine)
    observer = Observer(subjects, family_of(patcher), settings, keep, add_up)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, observer.around_run),
        (WrappersMP.PREDICT_NOISE, observer.around_step),
        (WrappersMP.CALC_COND_BATCH, observer.around_batch),
        (WrappersMP.APPLY_MODEL, observer.around_model),
    ):
        patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
    require_same_prompt(patcher, subjects, positive, log.warning)
    return AttentionCapture(observer)
