"""Classifier guidance: scores of the predicted picture guide a sampler, see `core.methods.picture_score`."""

from __future__ import annotations

from collections.abc import Sequence

from comfy.clip_vision import ClipVisionModel
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE

from ...core.methods.guidance import Guidance
from ...core.methods.picture_score import PictureScore
from ..autograd.picture_gradient import PictureGradient
from ..autograd.recorded_pictures import Pictures
from .guidance_report import GuidanceReport
from .guided_sampler import WRAPPER_KEY, guide


def guide_by_pictures(
    patcher: ModelPatcher, giver: str, vae: VAE, eyes: ClipVisionModel, scores: Sequence[PictureScore], how: Guidance
) -> GuidanceReport:
    """Guide every sampler that runs `patcher` (changed in place: pass a clone) by scores; the report of its runs.

    giver: the display name of the node. vae, eyes: see `Pictures`. Raises ValueError as `PictureGradient`.
    """
    report = GuidanceReport(giver)

    def gradient() -> PictureGradient:
        key = f"{WRAPPER_KEY}.{len(patcher.additional_models)}"  # several on one model
        return PictureGradient(patcher, key, Pictures(vae, eyes), scores)

    guide(patcher, report, how, gradient)
    return report
