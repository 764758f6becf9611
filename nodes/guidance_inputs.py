"""Inputs and outputs that nodes of guidance by attention share."""

from __future__ import annotations

from comfy_api.latest import io

from .core.attention.refine import AUTO
from .core.methods.guidance import ACTS_ON, PREDICTION, SCHEDULES, STATE, UNITS
from .sockets import Layout, Report


def when_inputs(steps: str, times: str = "times the published step") -> list[io.Input]:
    """How strongly, and at which steps: the published ones unless the user chooses."""
    return [
        io.Float.Input(
            "strength",
            default=1.0,
            min=0.0,
            max=100.0,
            step=0.05,
            tooltip=f"How far the latent is moved: {times}. 0 is off: the picture without this node.",
        ),
        io.String.Input(
            "steps",
            default=steps,
            tooltip=f"At which steps: a share of the run ({steps}, as published), step numbers (3) or ranges (0-9), "
            "counted from 0 among the steps that are run. The layout is decided early; later steps only cost time.",
        ),
    ]


def place_inputs() -> list[io.Input]:
    """Where words belong, by one of two inputs."""
    return [
        Layout.Input(
            "layout",
            optional=True,
            tooltip="Boxes that name words of the prompt, from Layout from Text; words without a box are free. This or "
            "masks.",
        ),
        io.Mask.Input(
            "masks",
            optional=True,
            tooltip="A mask for each of the words, in the order of the prompt, of any size. This or layout.",
        ),
    ]


def role_input(default: str, tooltip: str) -> io.Input:
    """Which of the words."""
    return io.Combo.Input("role", options=["subject", "scene", "all"], default=default, tooltip=tooltip)


def size_inputs(unit: str, size: float, schedule: str) -> list[io.Input]:
    """The step size, its unit, and how it goes on."""
    return [
        io.Combo.Input(
            "unit",
            options=list(UNITS),
            default=unit,
            advanced=True,
            tooltip="Of step_size. latent: a step of the latent that the network is given (Attend-and-Excite: 20). "
            "variance: times sigma² (layout guidance: 30). ddim: times sigma·√(1 + sigma²) (LLM-grounded diffusion: "
            "5). relative: the mean change as a share of sigma, whatever the gradient (0.02 to 0.1; the only one for "
            "flow models).",
        ),
        io.Float.Input(
            "step_size",
            default=size,
            min=0.0,
            max=10000.0,
            step=0.01,
            advanced=True,
            tooltip="How far one step moves the latent down the gradient, in this unit.",
        ),
        schedule_input(schedule),
    ]


def schedule_input(default: str) -> io.Input:
    """How the step size goes on over a run."""
    return io.Combo.Input(
        "schedule",
        options=list(SCHEDULES),
        default=default,
        advanced=True,
        tooltip="falling: the step shrinks over the run to 0.71 of its size (as published for Attend-and-Excite). "
        "constant: it stays.",
    )


def refinement_input(default: str, until: str) -> io.Input:
    """At which steps the latent is moved until a peak is reached. until: whose peak."""
    return io.String.Input(
        "refinement",
        default=default,
        advanced=True,
        tooltip="step: peak, for a run of 50 steps. At these steps the latent is moved again and again, at most 20 "
        f"times, until {until}, from 0 to 1. Empty: never. More makes words surer, and the picture less natural.",
    )


def repeat_inputs(repeats: str, until: float) -> list[io.Input]:
    """How often the latent is moved at a step, and when that is enough."""
    return [
        io.String.Input(
            "repeats",
            default=repeats,
            advanced=True,
            tooltip="How often the latent is moved at one step, at most: a number (layout guidance: 5), or from which "
            "step on how often (0: 4, 5: 3, 10: 2, 20: 1, as LLM-grounded diffusion; for a run of 50 steps). Each "
            "time costs a measurement.",
        ),
        io.Float.Input(
            "until",
            default=until,
            min=0.0,
            max=10000.0,
            step=0.01,
            advanced=True,
            tooltip="A picture whose loss is below this is in order (layout guidance: 0.2; LLM-grounded diffusion: 5; "
            "BoxDiff: the part of the worst word's inside alone). 0: it is moved at every chosen step.",
        ),
        io.Boolean.Input(
            "stop_for_good",
            default=True,
            advanced=True,
            tooltip="on, as published: a picture that is in order is moved once more and then left alone for the rest "
            "of the run. off: it is looked at at every chosen step, and moved if its loss has grown again.",
        ),
    ]


def weight_input(name: str, tooltip: str) -> io.Input:
    """How much a part of a loss counts."""
    how = {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.05, "advanced": True}
    return io.Float.Input(name, tooltip=f"{tooltip} 0: this part does not count.", **how)


def form_inputs(usual_layers: str) -> list[io.Input]:
    """Which layers are looked at, and what is changed."""
    return [
        io.String.Input(
            "layers",
            default=AUTO,
            advanced=True,
            tooltip=f"The cross-attention layers that are looked at. {usual_layers}. Or all, last, grids (16x16, "
            "height x width), names (output.5) or ranges (8-12), separated by commas.",
        ),
        act_input(),
    ]


def act_input(published: str = STATE) -> io.Input:
    """What is changed. published: what the paper changes."""
    state, prediction = (" (as published)" if each == published else "" for each in (STATE, PREDICTION))
    return io.Combo.Input(
        "act_on",
        options=list(ACTS_ON),
        default=AUTO,
        advanced=True,
        tooltip=f"state: the sampler's latent, before the model sees it{state}. prediction: what the model "
        f"predicts, after guidance by the negative prompt{prediction}; for any sampler, without refinement. auto: the "
        "state, or the prediction where a sampler does not hand over its state (uni_pc, sa_solver, dpm_adaptive, ...).",
    )


def guided_outputs() -> list[io.Output]:
    """The guided model, and what happened."""
    return [
        io.Model.Output(
            display_name="model",
            tooltip="For KSampler, KSampler (Advanced), SamplerCustom or a guider, or for a further patch.",
        ),
        Report.Output(
            display_name="report",
            tooltip="The loss of each word and the change at each guided step; for Guidance Report, which draws them, "
            "or Masked Latent Report.",
        ),
    ]
