"""The stock KSampler with a masked-latent plan installed."""

from __future__ import annotations

from typing import Any

import nodes
from comfy.model_patcher import ModelPatcher

from .sampling import MaskedLatent


def sample_masked(model: ModelPatcher, stock: tuple, plan: MaskedLatent) -> tuple[dict, Any, Any]:
    """Run the host's own KSampler on a copy of `model` with the plan installed.

    stock: (seed, steps, cfg, sampler name, scheduler, positive, negative, latent, denoise) as the KSampler takes them.
    Returns LATENT and, as `Report.outputs`, MASK and the saliency of all manipulated steps.
    """
    patcher = model.clone()
    report = plan.install(patcher)
    *settings, denoise = stock
    (latent,) = nodes.common_ksampler(patcher, *settings, denoise=denoise)
    masks, saliency, _ = report.outputs(latent["samples"])
    return latent, masks, saliency
