"""Put the noised reference into a part of the sampler's state (method section 7)."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import comfy.sample
import torch
from torch import Tensor

from ...core.methods.masked_latent import CURRENT, KEEP, Policy, blend, fit_reference
from .mask_sources import MaskSource
from .report import ManipulatedRun, Manipulation

log = logging.getLogger("explainable_latents")


class Replacement:
    """Changes the state entering a step: each side of the mask becomes what its policy says.

    inside, outside: the policies. source: where. report: what is told. reference: latent as ComfyUI stores it
    [1 or B,C,h,w]. guider, seed, noise, latent_image, denoise_mask: the host's, of this run; the state stays as it is
    where the host's `denoise_mask` (1: may change) protects it. Raises ValueError as `fit_reference` does.
    """

    def __init__(
        self,
        policies: tuple[Policy, Policy],
        source: MaskSource,
        report: ManipulatedRun,
        reference: Tensor,
        guider: Any,
        seed: int | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None,
    ) -> None:
        self._policies = policies
        self._source = source
        self._report = report
        self._sampling = guider.inner_model.model_sampling
        self._reference = fit_reference(guider.inner_model.process_latent_in(reference.to(noise)), noise)
        self._free = denoise_mask
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
        self._report.add(Manipulation(step, float(sigma), mask, saliency))
        log.debug("step %d, sigma %.4f: %.1f %% inside the mask", step, float(sigma), 100 * float(mask.mean()))
        inside, outside = (self._fill(policy, x, sigma) for policy in self._policies)
        if mask.ndim < x.ndim:
            mask = mask.view(mask.shape[0], *[1] * (x.ndim - 3), *mask.shape[-2:])
        replaced = blend(mask, inside, outside)
        return replaced if self._free is None else blend(self._free, replaced, x)

    def note(self, text: str) -> None:
        """See `changed_steps.Change`."""
        self._report.notes.append(text)
        log.info(text)

    def _fill(self, policy: Policy, x: Tensor, sigma: Tensor) -> Tensor:
        if policy.kind == KEEP:
            return x
        if policy.kind == CURRENT:
            return self._noised(sigma)
        # As published, the model is shown the reference of the fixed timestep: what the host feeds its network at that
        # noise level is scaled back from what it will feed at this one.
        cached = sigma.new_tensor(self._sampling.percent_to_sigma(1 - policy.timestep / 999))
        one = torch.ones_like(sigma)
        scale = self._sampling.calculate_input(cached, one) / self._sampling.calculate_input(sigma, one)
        return self._noised(cached) * scale

    def _noised(self, sigma: Tensor) -> Tensor:
        """q(z_ref, σ): the reference at noise level σ with the run's own noise."""
        return self._sampling.noise_scaling(sigma, self._noise, self._reference)
