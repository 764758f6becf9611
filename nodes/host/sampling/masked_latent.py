"""Masked-latent sampling: at chosen steps, replace part of the sampler's state by the noised reference."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...core.methods.masked_latent import (
    CURRENT,
    KEEP,
    RECORDED,
    Policy,
    blend,
    check_reference,
    fit_reference,
    parse_steps,
    with_frames,
)
from ...core.methods.masking import Masking, PaintedMasking
from ...core.methods.trajectory import Trajectory
from ..attention.model_call import OURS
from ..ui.live_masks import show_step
from .asker import Asker
from .changes import Change, SamplerInputs, change_steps
from .mask_sources import MaskSource, mask_source
from .painting import Painter
from .recorded_path import start_on_path, state_on_path
from .report import ManipulatedRun, Manipulation, Report
from .runs import Runs
from .variants import Variants, variants_of

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = OURS + "masked_latent"
START_KEY = OURS + "masked_latent_start"


@dataclass(frozen=True)
class MaskedLatent:
    """What to replace while a sampler runs.

    masking: how the mask is found. reference: the reference latent as ComfyUI stores it, [1 or B,C,h,w]. manipulate_at:
    see `parse_steps`; steps are counted in the schedule that the sampler is given. inside, outside: what fills the mask
    and the rest. trajectory: the path for the policy RECORDED; a run with that policy also starts from it. Raises
    ValueError where that policy has none, and as `check_reference` does.
    """

    masking: Masking
    reference: Tensor
    manipulate_at: str
    inside: Policy
    outside: Policy
    trajectory: Trajectory | None = None

    def __post_init__(self) -> None:
        if self.recorded and self.trajectory is None:
            raise ValueError(
                f"inside or outside is '{RECORDED}', but no trajectory is connected: connect that of Invert Picture"
            )
        check_reference(self.reference, (self.inside, self.outside))

    @property
    def recorded(self) -> bool:
        """Whether a side of the mask is filled from the trajectory."""
        return RECORDED in (self.inside.kind, self.outside.kind)

    def install(self, patcher: ModelPatcher) -> Report:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) replace its latent.

        Several of them may be installed on one model; each has its own report. The samplers raise ValueError as
        `parse_steps` and `fit_reference` do, and where their state cannot be changed.
        """
        painted = isinstance(self.masking, PaintedMasking)
        source = mask_source(self.masking.masking if painted else self.masking, patcher)
        report = Report(patcher.get_model_object("latent_format").spacial_downscale_ratio)

        runs = report.runs  # the patched model lives longer than the handle and must not keep it

        variants = variants_of(patcher) if painted else None

        def begin(inputs: SamplerInputs) -> Replacement:
            return Replacement(self, source, runs, inputs, variants)

        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, runs.around)
        if self.recorded:
            start_on_path(patcher, START_KEY, self.trajectory)
        change_steps(patcher, WRAPPER_KEY, begin)
        return report


class Replacement(Change):
    """Fills each side of the mask with what its policy says.

    plan: what to replace. source: finds the mask. runs: where to report it. inputs: the host's, of this run; where
    their `denoise_mask` protects the latent, the state stays as it is. variants: of the run; None where no mask is
    painted over. Raises ValueError as `parse_steps`, `fit_reference` and `Painter` do.
    """

    def __init__(
        self,
        plan: MaskedLatent,
        source: MaskSource,
        runs: Runs[ManipulatedRun],
        inputs: SamplerInputs,
        variants: Variants | None,
    ) -> None:
        super().__init__(parse_steps(plan.manipulate_at, inputs.steps))
        model = inputs.guider.inner_model
        self._painter = None
        if isinstance(plan.masking, PaintedMasking):

            def asker(steps: tuple[int, ...]) -> Asker:
                return variants.current.asker(runs, "Paint Mask While Sampling", plan.masking, steps, runs.current)

            self._painter = Painter(plan.masking, self.steps, inputs.steps, model.latent_format, asker)
        self._policies = plan.inside, plan.outside
        self._path = plan.trajectory
        self._source = source
        self._run = runs.current
        self._of_steps = inputs.steps
        self._sampling = model.model_sampling
        reference = with_frames(plan.reference.to(inputs.noise), inputs.noise)
        self._reference = fit_reference(model.process_latent_in(reference), inputs.noise)
        self._free = inputs.denoise_mask
        self._noise = inputs.noise
        if torch.count_nonzero(inputs.noise) == 0:
            # A run that continues another one adds no noise of its own, but the reference still has to reach the
            # state's noise level.
            fresh = comfy.sample.prepare_noise(torch.empty_like(inputs.latent_image, device="cpu"), inputs.seed or 0)
            self._noise = fresh.to(inputs.noise)
        self._in_first_step = bool(self.steps)
        self.before_call(last=False, more=bool(self.steps))

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """Find the mask, fill both sides of it, and report it; see `Change`. Raises ValueError as the source does."""
        mask, saliency = self._source(x, predict)
        if self._painter is not None:
            mask = self._painter(step, x, sigma, (mask, saliency), predict)
        self._in_first_step = self._in_first_step and step == 0
        self._run.add(Manipulation(step, float(sigma), mask, saliency))
        show_step(step, self._of_steps, mask, None if saliency is None else saliency.maps)
        log.debug("step %d, sigma %.4f: %.1f %% inside the mask", step, float(sigma), 100 * float(mask.mean()))
        inside, outside = (self._fill(policy, x, sigma) for policy in self._policies)
        mask = mask.unsqueeze(1) if mask.ndim == 3 else mask
        if x.ndim == 5:
            # what the model looks at has a mask for every frame of every video, a ready-made mask is for all frames
            own = len(mask) == len(x) * x.shape[2]
            mask = mask.unflatten(0, (len(x), -1)).transpose(1, 2) if own else mask.unsqueeze(2)
        replaced = blend(mask, inside, outside)
        return replaced if self._free is None else blend(self._free, replaced, x)

    def before_call(self, last: bool, more: bool) -> None:
        """Say to the source whether it is asked for a mask, or for a check, right after this call or later."""
        self._source.before_call(last or self._in_first_step, more)

    def after_first_step(self) -> None:
        """Raise the ValueError of a mask that cannot be made, see `MaskSource.check`."""
        self._source.check()
        self._in_first_step = False

    def predicted(self, x0: Tensor) -> None:
        """See `Change`."""
        if self._painter is not None:
            self._painter.predicted(x0)

    def note(self, text: str) -> None:
        """Also put the text into the report."""
        super().note(text)
        self._run.notes.append(text)

    def _fill(self, policy: Policy, x: Tensor, sigma: Tensor) -> Tensor:
        if policy.kind == KEEP:
            return x
        if policy.kind == RECORDED:
            return state_on_path(self._path, sigma, x)
        if policy.kind == CURRENT:
            return self._noised(sigma)
        # As in the paper's code, the network gets the reference as it would at the fixed timestep. The host scales the
        # state for this step's noise level, so the reference is multiplied by the ratio of the two scales.
        cached = sigma.new_tensor(self._sampling.percent_to_sigma(1 - policy.timestep / 999))
        one = torch.ones_like(sigma)
        scale = self._sampling.calculate_input(cached, one) / self._sampling.calculate_input(sigma, one)
        return self._noised(cached) * scale

    def _noised(self, sigma: Tensor) -> Tensor:
        """q(z_ref, σ): the reference at noise level σ with the run's own noise."""
        return self._sampling.noise_scaling(sigma, self._noise, self._reference)
