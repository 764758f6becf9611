"""How guidance by a gradient is installed on a model; `guided_state` is what it does in a run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...core.methods.guidance import Guidance
from ..attention.model_call import ASIDE, OURS
from .changes import SamplerInputs, change_steps
from .guidance_report import GuidanceReport
from .guided_state import Gradient, GuidedState

WRAPPER_KEY = OURS + "guidance"


Begun = Callable[[GuidedState, Any, SamplerInputs], None]


def guide(
    patcher: ModelPatcher,
    report: GuidanceReport,
    how: Guidance,
    gradient: Callable[[], Gradient],
    begun: Begun | None = None,
) -> None:
    """Guide every sampler that runs `patcher` (changed in place: pass a clone); `report` is filled.

    gradient: installs what measures on it, and is not called where the guidance is off. begun: is told of each run's
    state, of what measures, and of the host's inputs, before the first step. Several may guide one model;
    each has its own report. The samplers raise ValueError where their state cannot be changed although the user wants
    that.
    """
    giver, runs = report.giver, report.runs  # the patched model lives longer than the handle and must not keep it
    patcher.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, WRAPPER_KEY, runs.around)
    if how.is_off:
        return
    measuring = gradient()

    def begin(inputs: SamplerInputs) -> GuidedState:
        state = GuidedState(giver, how, measuring, runs.current, inputs)
        if begun is not None:
            begun(state, measuring, inputs)
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
