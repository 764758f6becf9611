"""The stock KSampler with a masked-latent plan installed, and its outputs as ComfyUI types."""

from __future__ import annotations

from typing import Any

import nodes
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..core.masking import Masking
from ..core.replacement import Policy
from ..core.saliency import Saliency
from .sampling import Manipulation, MaskedLatent


def sample_masked(
    model: ModelPatcher,
    stock: tuple,
    masking: Masking,
    reference: dict,
    manipulate_at: str,
    inside: Policy,
    outside: Policy,
) -> tuple[dict, Any, Any]:
    """Run the host's own KSampler on a copy of `model` with the plan installed.

    stock: (seed, steps, cfg, sampler name, scheduler, positive, negative, latent, denoise) as the KSampler takes them.
    reference: LATENT. Returns LATENT, MASK [N·B,H,W] in picture pixels (N manipulated steps, one after the other) and
    the saliency of all of them. An output that this run does not have blocks the nodes behind it with a message.
    """
    patcher = model.clone()
    plan = MaskedLatent(masking, reference["samples"], manipulate_at, inside, outside)
    plan.install(patcher)
    *settings, denoise = stock
    (latent,) = nodes.common_ksampler(patcher, *settings, denoise=denoise)
    scale = patcher.get_model_object("latent_format").spacial_downscale_ratio
    return latent, picture_masks(plan.report, scale), joined_saliency(plan.report)


def picture_masks(report: list[Manipulation], scale: int) -> Tensor | ExecutionBlocker:
    """The masks of all manipulated steps as MASK, every latent pixel a square of `scale` picture pixels.

    Where each latent channel has a mask of its own, their mean.
    """
    if not report:
        return ExecutionBlocker(
            "manipulate_at names no step, so there is no mask. Write step numbers such as 5, 18, 28."
        )
    masks = torch.cat([entry.mask if entry.mask.ndim == 3 else entry.mask.mean(1) for entry in report])
    return masks.repeat_interleave(scale, -2).repeat_interleave(scale, -1).float().cpu()


def joined_saliency(report: list[Manipulation]) -> Saliency | ExecutionBlocker:
    """The maps of all manipulated steps in one saliency, labelled `word, step j`."""
    found = [entry for entry in report if entry.saliency is not None]
    if not found:
        return ExecutionBlocker("The masks of this run were given, not found by attention, so there is no saliency.")
    maps = torch.cat([entry.saliency.maps for entry in found]).cpu()
    labels = tuple(f"{label}, step {entry.step}" for entry in found for label in entry.saliency.labels)
    return Saliency(maps, labels, found[-1].sigma, None, found[-1].saliency.grid)
