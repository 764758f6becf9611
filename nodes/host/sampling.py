"""Run a sampler in segments and replace part of its state between them (method section 7)."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor
from tqdm.auto import tqdm

from ..core.masking import Masking
from ..core.replacement import CURRENT, KEEP, Policy, blend, fit_reference
from ..core.saliency import Saliency
from ..core.schedule import parse_steps
from .mask_sources import MaskSource, mask_source
from .noise_source import shared_noise_source

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = "explainable_latents.masked_latent"

# These choose their own noise levels between the ends of the schedule: a step number means nothing to them.
_OWN_STEPS = ("dpm_fast_function", "dpm_adaptive_function")


@dataclass(frozen=True)
class Manipulation:
    """What happened at one manipulated step: number, σ, mask [B or 1,h,w] or [B,C,h,w], the saliency it came from."""

    step: int
    sigma: float
    mask: Tensor
    saliency: Saliency | None


@dataclass(frozen=True)
class MaskedLatent:
    """What to do while a sampler runs, and the report of the last run.

    masking: where. reference: the reference latent as ComfyUI stores it, [1 or B,C,h,w]. manipulate_at: see
    `parse_steps`. inside, outside: what
    fills the mask and the rest. report: one entry per manipulated step of the most recent run.
    """

    masking: Masking
    reference: Tensor
    manipulate_at: str
    inside: Policy
    outside: Policy
    report: list[Manipulation] = field(default_factory=list)

    def install(self, patcher: ModelPatcher) -> None:
        """Make every sampler that runs `patcher` (changed in place.

        Pass a clone) replace its latent at the chosen steps.
        """
        source = mask_source(self.masking, patcher)

        def wrapper(executor: WrapperExecutor, guider: Any, sigmas: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self._run(source, executor, guider, sigmas, *args, **kwargs)

        patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, WRAPPER_KEY, wrapper)

    def _run(
        self,
        source: MaskSource,
        executor: WrapperExecutor,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """SAMPLER_SAMPLE wrapper: run the same sampler with its function cut into segments."""
        sampler = executor.class_obj
        name = getattr(getattr(sampler, "sampler_function", None), "__name__", type(sampler).__name__)
        if name in _OWN_STEPS or not hasattr(sampler, "sampler_function"):
            raise ValueError(
                f"the sampler {name.removesuffix('_function')} chooses its own steps, so the latent cannot be "
                f"replaced at step "
                f"{self.manipulate_at}. Choose a sampler that follows the scheduler: euler, ddpm, dpmpp_2m, ..."
            )
        self.report.clear()
        steps = parse_steps(self.manipulate_at, len(sigmas) - 1)
        replace = Replacement(self, source, guider, extra_args.get("seed"), noise, latent_image)
        segmented = copy.copy(sampler)
        segmented.sampler_function = Segments(sampler.sampler_function, steps, replace)
        following = WrapperExecutor.new_class_executor(segmented.sample, segmented, executor.wrappers, executor.idx + 1)
        return following.execute(guider, sigmas, extra_args, callback, noise, latent_image, *args, **kwargs)


class Segments:
    """A sampler function that runs another one in segments and changes the state between them."""

    def __init__(self, function: Callable, steps: tuple[int, ...], replace: Replacement) -> None:
        self._function = function
        self._steps = steps
        self._replace = replace
        self.__name__ = getattr(function, "__name__", type(function).__name__)

    def __call__(
        self,
        model: Any,
        x: Tensor,
        sigmas: Tensor,
        extra_args: dict | None = None,
        callback: Callable | None = None,
        disable: bool | None = None,
        **options: Any,
    ) -> Tensor:
        """Sample from `x` at sigmas[0] to sigmas[-1]; one noise source and one progress bar for all segments."""
        total = len(sigmas) - 1
        if options.get("noise_sampler") is None and (seed := (extra_args or {}).get("seed")) is not None:
            source = shared_noise_source(self._function, x, sigmas, seed)
            options |= {"noise_sampler": source} if source is not None else {}
        ones = x.new_ones(x.shape[0])
        with tqdm(total=total, disable=disable) as bar:
            for start, end in self._segments(total):
                if start in self._steps:
                    x = self._replace(
                        start, x, sigmas[start], partial(model, x, sigmas[start] * ones, **(extra_args or {}))
                    )
                if start < end:
                    progress = _from_step(start, callback, bar)
                    part = sigmas[start : end + 1].clone()
                    x = self._function(
                        model, x, part, extra_args=dict(extra_args or {}), callback=progress, disable=True, **options
                    )
        return x

    def _segments(self, total: int) -> list[tuple[int, int]]:
        starts = sorted({0, *self._steps})
        return list(zip(starts, [*starts[1:], total], strict=True))


def _from_step(start: int, callback: Callable | None, bar: tqdm) -> Callable[[dict], None]:
    """A sampler callback that counts steps from the beginning of the whole run."""

    def report(state: dict) -> None:
        bar.update(start + state["i"] + 1 - bar.n)
        if callback is not None:
            callback({**state, "i": start + state["i"]})

    return report


class Replacement:
    """Changes the state entering a step: x_j inside the mask, the noised reference outside (or as the policies say)."""

    def __init__(
        self, plan: MaskedLatent, source: MaskSource, guider: Any, seed: int | None, noise: Tensor, latent_image: Tensor
    ) -> None:
        self._plan = plan
        self._source = source
        self._sampling = guider.inner_model.model_sampling
        self._reference = fit_reference(guider.inner_model.process_latent_in(plan.reference.to(noise)), noise)
        self._noise = noise
        if torch.count_nonzero(noise) == 0:
            # A run that continues another one adds no noise of its own, but the reference still has to reach the
            # state's noise level.
            fresh = comfy.sample.prepare_noise(torch.empty_like(latent_image, device="cpu"), seed or 0)
            self._noise = fresh.to(noise)

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """Return the state that enters `step` (noise level `sigma`) instead of `x` [B,C,h,w], and report it.

        predict: one call of the model on that state, for masks that need one.
        """
        mask, saliency = self._source(x, predict)
        self._plan.report.append(Manipulation(step, float(sigma), mask, saliency))
        log.debug(
            "step %d, sigma %.4f: %.1f %% of the latent inside the mask", step, float(sigma), 100 * float(mask.mean())
        )
        inside, outside = (self._fill(policy, x, sigma) for policy in (self._plan.inside, self._plan.outside))
        if mask.ndim < x.ndim:
            mask = mask.view(mask.shape[0], *[1] * (x.ndim - 3), *mask.shape[-2:])
        return blend(mask, inside, outside)

    def _fill(self, policy: Policy, x: Tensor, sigma: Tensor) -> Tensor:
        if policy.kind == KEEP:
            return x
        if policy.kind == CURRENT:
            return self._noised(sigma)
        # As published, the model is shown the reference of the fixed timestep: what the host feeds its network at that
        # noise level is scaled
        # back from what it will feed at this one.
        cached = sigma.new_tensor(self._sampling.percent_to_sigma(1 - policy.timestep / 999))
        one = torch.ones_like(sigma)
        scale = self._sampling.calculate_input(cached, one) / self._sampling.calculate_input(sigma, one)
        return self._noised(cached) * scale

    def _noised(self, sigma: Tensor) -> Tensor:
        """q(z_ref, σ): the reference at noise level σ with the run's own noise."""
        return self._sampling.noise_scaling(sigma, self._noise, self._reference)
