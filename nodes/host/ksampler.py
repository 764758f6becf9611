"""The stock KSampler with a masked-latent plan installed."""

from __future__ import annotations

from typing import Any

import nodes
from comfy.model_patcher import ModelPatcher

from .node_text import show_on_running_node
from .sampling import MaskedLatent


def sample_masked(model: ModelPatcher, stock: tuple, plan: MaskedLatent) -> tuple[dict, Any, Any]:
    """Run the host's own KSampler on a copy of `model` with the plan installed.

    stock: (seed, steps, cfg, sampler name, scheduler, positive, negative, latent, denoise) as the KSampler takes them.
    Returns LATENT and, as `Report.outputs`, MASK and the saliency of all manipulated steps. What is to be said of how
    the sampler was changed is shown on the node.
    """
    patcher = model.clone()
    report = plan.install(patcher)
    *settings, denoise = stock
    (latent,) = nodes.common_ksampler(patcher, *settings, denoise=denoise)
    masks, saliency, _ = report.outputs(latent["samples"])
    if notes := report.notes(latent["samples"]):
        show_on_running_node("\n".join(notes))
    return latent, masks, saliency
