"""Guidance of a sampler by a loss on the attention to the prompt's words, see `core.methods.guidance`.

What guides; `guided_sampler` installs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher

from ...core.attention.refine import AUTO
from ...core.methods.guidance import AttentionLoss, Guidance
from ...core.methods.self_guidance import SelfGuidance
from ...core.methods.word_places import Places
from ...core.words.subjects import Subjects
from ..autograd.latent_gradient import LatentGradient
from .changes import SamplerInputs
from .guidance_report import GuidanceReport
from .guided_sampler import WRAPPER_KEY, guide
from .guided_state import GuidedState
from .plain_run import losses_beside_plain_run


@dataclass(frozen=True)
class WordGuidance:
    """What guides a sampler. giver: the display name of the node; layers, positive: see `LatentGradient`.

    places: where the words belong, for the report, if the loss is about that.
    """

    giver: str
    loss: AttentionLoss
    subjects: Subjects
    guidance: Guidance
    layers: str = AUTO
    positive: Sequence[Sequence[Any]] | None = None
    places: Places | None = None

    def install(self, patcher: ModelPatcher) -> GuidanceReport:
        """Guide every sampler that runs `patcher` (changed in place: pass a clone).

        Several may be installed on one model; each has its own report. Without strength nothing but the report is. The
        samplers raise ValueError where their state cannot be changed although the user wants that. Raises ValueError
        as `LatentGradient`.
        """
        report = GuidanceReport(self.giver, self.places)
        runs = report.runs  # the patched model lives longer than the handle and must not keep it

        def gradient() -> LatentGradient:
            return LatentGradient(patcher, WRAPPER_KEY, self.subjects, self.loss, self.layers, self.positive)

        def compare(state: GuidedState, measuring: LatentGradient, inputs: SamplerInputs) -> None:
            if isinstance(self.loss, SelfGuidance) and self.loss.needs_plain:
                state.compare(losses_beside_plain_run(self.loss, self.guidance, measuring, runs.current, inputs))

        guide(patcher, report, self.guidance, gradient, compare)
        return report
