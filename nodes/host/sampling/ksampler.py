"""The stock KSampler with a masked-latent plan installed."""

from __future__ import annotations

from typing import Any

import nodes
from comfy.model_patcher import ModelPatcher
from comfy.samplers import KSampler

from ...core.methods.masked_latent import check_steps, parse_steps
from ..ui.running_node import show_on_running_node
from .masked_latent import MaskedLatent


def sampler_names() -> list[str]:
    """The host's samplers now, with those that other packs added."""
    return KSampler.SAMPLERS


def scheduler_names() -> list[str]:
    """The host's schedulers now, with those that other packs added."""
    return KSampler.SCHEDULERS


def sample_masked(model: ModelPatcher, stock: tuple, plan: MaskedLatent) -> tuple[dict, Any, Any]:
    """Run the host's own KSampler on a copy of `model` with the plan installed.

    stock: (seed, steps, cfg, sampler name, scheduler, positive, negative, latent, denoise) as the KSampler takes them.
    Returns LATENT and, as `Report.outputs`, MASK and the saliency of all manipulated steps. How the sampler had to be
    treated so that its state could be changed is shown on the node.
    """
    patcher = model.clone()
    report = plan.install(patcher)
    *settings, denoise = stock
    (latent,) = nodes.common_ksampler(patcher, *settings, denoise=denoise)
    masks, saliency, _ = report.outputs(latent["samples"])
    if notes := [note for run in report.runs.parts(latent["samples"]) for note in run.notes]:
        show_on_running_node("\n".join(notes))
    return latent, masks, saliency


def steps_problem(
    manipulate_at: str | None, steps: int | None = None, denoise: float | None = None, scheduler: str | None = None
) -> str:
    """Say what is wrong with the steps to manipulate or with the run that they are counted in; empty if nothing is.

    Each argument is None where it comes from another node and is not known yet. The host does not check the ranges of
    inputs that a node validates itself, so they are checked here.
    """
    if steps is not None and not 1 <= steps <= 10000:
        return f"steps {steps} must lie between 1 and 10000"
    if denoise is not None and not 0 <= denoise <= 1:
        return f"denoise {denoise} must lie between 0 and 1"
    if scheduler is not None and scheduler not in KSampler.SCHEDULERS:
        return f"scheduler {scheduler!r} is not one of: {', '.join(KSampler.SCHEDULERS)}"
    try:
        if manipulate_at is not None:
            check_steps(manipulate_at)
            # ddim_uniform may make a few steps more than it was asked for, unless denoise cuts its beginning.
            if None not in (steps, denoise, scheduler) and (denoise <= 0.9999 or scheduler != "ddim_uniform"):
                parse_steps(manipulate_at, steps)
    except ValueError as problem:
        return str(problem)
    return ""
