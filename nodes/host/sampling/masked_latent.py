"""Masked-latent sampling: make any sampler replace part of its state at chosen steps (method section 7)."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...core.methods.masked_latent import Policy, check_reference, parse_steps
from ...core.methods.masking import Masking
from ..attention.model_call import OURS
from .changed_steps import ChangedSteps
from .mask_sources import MaskSource, mask_source
from .replacing import Replacement
from .report import ManipulatedRun, Report
from .runs import Runs

WRAPPER_KEY = OURS + "masked_latent"


@dataclass(frozen=True)
class MaskedLatent:
    """What to do while a sampler runs.

    masking: where. reference: the reference latent as ComfyUI stores it, [1 or B,C,h,w]. manipulate_at: see
    `parse_steps`; steps count in the schedule that the sampler is given. inside, outside: what fills the mask and the
    rest. Raises ValueError as `check_reference` does.
    """

    masking: Masking
    reference: Tensor
    manipulate_at: str
    inside: Policy
    outside: Policy

    def __post_init__(self) -> None:
        check_reference(self.reference, (self.inside, self.outside))

    def install(self, patcher: ModelPatcher) -> Report:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) replace its latent.

        Several plans may be installed on one model; they act beside each other. The samplers raise ValueError as
        `parse_steps` and `fit_reference` do, and for a sampler that chooses its own steps.
        """
        source = mask_source(self.masking, patcher)
        report = Report(patcher.get_model_object("latent_format").spacial_downscale_ratio)

        runs = report.runs  # the patched model lives longer than the handle and must not keep it

        def wrapper(executor: WrapperExecutor, guider: Any, sigmas: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self._run(source, runs, executor, guider, sigmas, *args, **kwargs)

        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, runs.around)
        patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY, wrapper)
        return report

    def _run(
        self,
        source: MaskSource,
        runs: Runs[ManipulatedRun],
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
        """SAMPLER_SAMPLE wrapper: run the same sampler with a function that has its state changed."""
        sampler = executor.class_obj
        if not hasattr(sampler, "sampler_function"):
            raise ValueError(
                f"the sampler {type(sampler).__name__} has no sampler function, so the latent cannot be replaced at "
                f"step {self.manipulate_at}. Choose a sampler that follows the scheduler: euler, ddpm, dpmpp_2m, ..."
            )
        steps = parse_steps(self.manipulate_at, len(sigmas) - 1)
        policies, seed = (self.inside, self.outside), extra_args.get("seed")
        change = Replacement(
            policies, source, runs.current, self.reference, guider, seed, noise, latent_image, denoise_mask
        )
        changed = copy.copy(sampler)
        changed.sampler_function = ChangedSteps.around(sampler.sampler_function, steps, change)
        following = WrapperExecutor.new_class_executor(changed.sample, changed, executor.wrappers, executor.idx + 1)
        watched = _first_step(source.check, callback) if steps else callback
        return following.execute(
            guider, sigmas, extra_args, watched, noise, latent_image, denoise_mask, *args, **kwargs
        )


def _first_step(check: Callable[[], None], callback: Callable | None) -> Callable[..., None]:
    """The host's sampler callback that also calls `check` after the first step."""

    def after(step: int, *args: Any) -> None:
        if step == 0:
            check()
        if callback is not None:
            callback(step, *args)

    return after
