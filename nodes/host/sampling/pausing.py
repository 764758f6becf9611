"""At chosen steps a sampler waits in its step callback, and values of the rest of its run may change."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...core.choices import one_of
from ...core.methods.masked_latent import check_steps, parse_steps
from ...core.methods.masking import THEN
from ..attention.model_call import ASIDE
from ..attention.observer import AttentionCapture
from ..pauses.image_metadata import ImageMetadata
from ..pauses.records import read_records
from .live_prompt import PAUSE_KEY, LivePrompt, Weighted
from .pause_report import PausedRun, PauseReport
from .paused_sampler import RunWithPauses, SamplingEnded
from .runs import Runs
from .shown_call import ShownCall
from .staged_values import StagedValues, check_alternative
from .variants import Variants, variants_of


@dataclass(frozen=True)
class PausePlan:
    """When a sampler pauses.

    pause_at: see `parse_steps`; the pause is before the step, which is at least 1. seconds, then, answers, metadata: as
    of `PaintedMasking`. alternative: a CONDITIONING that the positive one may be blended with. clip: encodes a text
    that the positive one may be exchanged for. Raises ValueError for another choice of `then`, for an alternative of
    several prompts, and as `read_records`.
    """

    pause_at: str
    seconds: int
    then: str
    answers: str = ""
    alternative: list | None = None
    clip: Any = None
    metadata: ImageMetadata | None = None

    def __post_init__(self) -> None:
        one_of("when_over", self.then, THEN)
        check_alternative(self.alternative)
        read_records(self.answers)

    def steps(self, total: int) -> tuple[int, ...]:
        """The steps of a run of so many that are paused before; shares of a run that is too short for them are not.

        Raises ValueError as `parse_steps`, and for numbers of steps before which there is no pause.
        """
        steps = parse_steps(self.pause_at, total, "pause_at")
        numbers = ",".join(item for item in self.pause_at.split(",") if "%" not in item)
        if wrong := [step for step in parse_steps(numbers, total, "pause_at") if not 0 < step < total]:
            raise ValueError(
                f"pause_at: before step {wrong[0]} there is no pause: nothing is predicted before step 0, and nothing "
                f"is left to do after the last one. This run can pause before steps 1 to {total - 1}"
            )
        return tuple(step for step in steps if 0 < step < total)

    def install(
        self, patcher: ModelPatcher, attention: AttentionCapture | None = None, weighted: Weighted | None = None
    ) -> PauseReport:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) pause.

        attention: shown there. weighted: what makes words count more or less in these runs, None where nothing can.
        The samplers raise ValueError as `steps`, and for recorded answers that the run has no steps for.
        """
        report = PauseReport()
        pauses = Pauses(self, report.runs, variants_of(patcher), attention, weighted)
        for kind, wrapper in (
            (WrappersMP.OUTER_SAMPLE, pauses.around_run),
            (WrappersMP.SAMPLER_SAMPLE, pauses.around_sampler),
            (WrappersMP.PREDICT_NOISE, pauses.around_call),
        ):
            patcher.add_wrapper_with_key(kind, PAUSE_KEY, wrapper)
        return report


def plan_problem(name: str, steps: str | None, answers: str | None) -> str:
    """Say what is wrong with the steps of the input `name` or with recorded answers; empty if nothing is.

    Each is None where it comes from another node and is not known yet.
    """
    try:
        check_steps(steps or "", name)
        read_records(answers or "")
    except ValueError as problem:
        return str(problem)
    return ""


class Pauses:
    """What is installed on a model. The patched model lives longer than the handles and must not keep them."""

    def __init__(
        self,
        plan: PausePlan,
        runs: Runs[PausedRun],
        variants: Variants,
        attention: AttentionCapture | None,
        weighted: Weighted | None,
    ) -> None:
        self._plan = plan
        self._runs = runs
        self._variants = variants
        self._attention = (lambda: None) if attention is None else weakref.ref(attention)
        self._weighted = weighted
        self._arguments: dict[str, Any] = {}
        self._now: RunWithPauses | None = None

    def around_run(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE wrapper, see `Runs.around`."""
        _put_first(executor.class_obj)
        outer, self._arguments = self._arguments, {key: kwargs[key] for key in ("latent_shapes",) if key in kwargs}
        try:
            return self._runs.around(executor, *args, **kwargs)
        finally:
            self._arguments = outer

    def around_sampler(
        self,
        executor: WrapperExecutor,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """SAMPLER_SAMPLE wrapper: run the same sampler with a callback that waits."""
        again = {"latent_image": latent_image, "denoise_mask": denoise_mask, "seed": extra_args.get("seed")}
        attention = self._attention()
        words = None if attention is None else attention.subjects
        prompt = LivePrompt(guider, noise, self._plan.clip, words, self._weighted)
        staged = StagedValues(guider, self._plan.alternative, noise, {**again, **self._arguments}, prompt)
        call = ShownCall(guider, prompt, attention, latent_image, denoise_mask)
        levels = sigmas.tolist()
        steps = self._plan.steps(len(levels) - 1)
        asker = self._variants.current.asker(self._runs, "Pause Sampling", self._plan, steps, self._runs.current)
        pausing = RunWithPauses(asker, guider, levels, steps, staged, call)
        outer, self._now = self._now, pausing
        try:
            after = pausing.callback(callback)
            return executor(guider, sigmas, extra_args, after, noise, latent_image, denoise_mask, *args, **kwargs)
        except SamplingEnded as ended:
            if ended.pausing is not pausing:
                raise
            # a prediction is clean, whatever noise the sampler would have left
            sampling = guider.inner_model.model_sampling
            return sampling.inverse_noise_scaling(sigmas.new_zeros(()), ended.x0)
        finally:
            staged.restore()
            call.forget()
            self._now = outer

    def around_call(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper: the values that were chosen take effect. Calls beside the sampler's do not count."""
        if self._now is not None and ASIDE not in model_options.get("transformer_options", {}):
            self._now.before_call(x, timestep, model_options, *args, **kwargs)
        return executor(x, timestep, model_options, *args, **kwargs)


def _put_first(guider: Any) -> None:
    """What changes values goes before everything that looks at them in the same model call."""
    around = guider.model_options["transformer_options"]["wrappers"][WrappersMP.PREDICT_NOISE]
    others = {key: around.pop(key) for key in list(around) if key != PAUSE_KEY}
    around.update(others)
