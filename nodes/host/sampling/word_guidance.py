"""Guidance of a sampler by a loss on the attention to the prompt's words, see `core.methods.guidance`.

What guides, and how it is installed; `guided_state` is what it does in a run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...core.attention.refine import AUTO
from ...core.methods.guidance import AttentionLoss, Guidance
from ...core.methods.self_guidance import SelfGuidance
from ...core.methods.word_places import Places
from ...core.words.subjects import Subjects
from ..attention.model_call import ASIDE, OURS
from ..autograd.latent_gradient import LatentGradient
from .changes import SamplerInputs, change_steps
from .guidance_report import GuidanceReport
from .guided_state import GuidedState
from .plain_run import losses_beside_plain_run

WRAPPER_KEY = OURS + "guidance"


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
        patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, runs.around)
        if self.guidance.is_off:
            return report
        gradient = LatentGradient(patcher, WRAPPER_KEY, self.subjects, self.loss, self.layers, self.positive)

        def begin(inputs: SamplerInputs) -> GuidedState:
            state = GuidedState(self.giver, self.guidance, gradient, runs.current, inputs)
            if isinstance(self.loss, SelfGuidance) and self.loss.needs_plain:
                state.compare(losses_beside_plain_run(self.loss, self.guidance, gradient, runs.current, inputs))
            return state

        def around_step(
            executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
        ) -> Tensor:
            """PREDICT_NOISE wrapper: where predictions are changed, do it; `executor.class_obj` is the guider."""

            def predicted() -> Tensor:
                return executor(x, timestep, model_options, *args, **kwargs)

            acting = runs.current.acting if runs.current is not None else None
            if acting is None or acting.beside != model_options.get("transformer_options", {}).get(ASIDE):
                return predicted()
            return acting.changed_prediction(executor.class_obj, x, timestep, model_options, predicted)

        change_steps(patcher, WRAPPER_KEY, begin)
        patcher.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, WRAPPER_KEY, around_step)
        return report
