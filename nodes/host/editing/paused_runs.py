"""Runs that pause, with all that a user can change there."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ..attention.observer import AttentionCapture
from ..sampling.pause_report import PauseReport
from ..sampling.pausing import PausePlan
from .weighted_words import install_weights


def install_pauses(patcher: ModelPatcher, plan: PausePlan, attention: AttentionCapture | None = None) -> PauseReport:
    """Make every sampler that runs `patcher` (changed in place: pass a clone) pause; see `PausePlan.install`."""
    return plan.install(patcher, attention, install_weights(patcher))
