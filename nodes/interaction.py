"""Paint Mask While Sampling, Pause Sampling: a running sampler waits for its user."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.methods.masking import ASK_AT, CONTINUE, STARTS, THEN, PaintedMasking
from .host.editing.paused_runs import install_pauses
from .host.handles import fingerprint, tracked
from .host.pauses.asking import queued_by_one_who_answers
from .host.pauses.image_metadata import image_metadata
from .host.sampling.pausing import PausePlan, plan_problem
from .sockets import CATEGORY, Attention, Masking, Report

EVERY_RUN, WHEN_CHANGED = AGAIN = ("every run", "when inputs changed")


def waiting_inputs() -> list[io.Input]:
    """How long to wait, what then, and when to ask again."""
    return [
        io.Int.Input(
            "time_limit",
            default=600,
            min=0,
            max=86400,
            tooltip="Seconds to wait for an answer at each stop; 0 waits as long as it takes. Other runs in the queue "
            "wait, too, and the memory stays taken.",
        ),
        io.Combo.Input(
            "when_over",
            options=list(THEN),
            default=CONTINUE,
            tooltip="What happens when the time is over, or 60 seconds after the browser was closed. continue: the run "
            "goes on with what was shown. cancel: it stops.",
        ),
        io.Combo.Input(
            "ask_again",
            options=list(AGAIN),
            default=EVERY_RUN,
            advanced=True,
            tooltip="every run: the sampler runs anew and asks each time the workflow is queued from a browser. when "
            "inputs changed: as other nodes, a run like the one before is taken from the cache, with its answers.",
        ),
        io.String.Input(
            "answers",
            default="",
            multiline=True,
            advanced=True,
            tooltip="Answers of an earlier run, to repeat it without being asked: the line 'answers: ...' of its "
            "report. Empty to be asked; [] to go on everywhere and never be asked. A list of such lists makes a "
            "variant for each, as one batch.",
        ),
    ]


def asked_again(ask_again: str | None, answers: str | None) -> str:
    """A new value for each run that asks its user, so that it is not taken from the cache."""
    return queued_by_one_who_answers() if ask_again == EVERY_RUN and not answers else ""


class ELPaintMask(io.ComfyNode):
    """Lets the user paint over the masks that a sampler finds, while it waits."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPaintMask",
            display_name="Paint Mask While Sampling",
            category=CATEGORY,
            description="At manipulated steps the sampler stops and shows the predicted picture and the mask that was "
            "found. Paint on it, and the run goes on with your mask. Only the browser that queued the run is asked; "
            "without one the run goes on at once, with the found mask.",
            search_aliases=["pause", "interactive", "brush", "mask editor", "wait", "paint"],
            inputs=[
                Masking.Input(
                    "masking",
                    tooltip="How to find the mask that you paint on: from Mask from Attention, Mask from Abs-Grad-SAM "
                    "or Mask from Image.",
                ),
                io.Combo.Input(
                    "ask_at",
                    options=list(ASK_AT),
                    default=ASK_AT[0],
                    tooltip="At which of the steps where the latent is replaced you are asked.",
                ),
                io.String.Input(
                    "listed_steps",
                    default="",
                    advanced=True,
                    tooltip="Only with 'listed steps': which, as in manipulate_at (50%, 5, 18-20). Steps at which "
                    "nothing is replaced are passed over.",
                ),
                io.Combo.Input(
                    "start_from",
                    options=list(STARTS),
                    default=STARTS[0],
                    tooltip="What is applied to the masks found later in the run. the found mask: nothing, each is as "
                    "it was found. last painted: what you added and removed at the last stop is added and removed "
                    "there, too, and you paint on from that.",
                ),
                *waiting_inputs(),
            ],
            outputs=[
                Masking.Output(
                    display_name="masking",
                    tooltip="For KSampler (Masked Latent) or Masked Latent (model patch).",
                )
            ],
            hidden=[io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, ask_again: str | None = None, answers: str | None = None, **_: Any) -> str:
        """A new value for each run that asks."""
        return asked_again(ask_again, answers)

    @classmethod
    def validate_inputs(cls, listed_steps: str | None = None, answers: str | None = None) -> bool | str:
        """Refuse steps and answers that cannot be read before anything is loaded."""
        return plan_problem("listed_steps", listed_steps, answers) or True

    @classmethod
    def execute(
        cls,
        masking: Any,
        ask_at: str,
        listed_steps: str,
        start_from: str,
        time_limit: int,
        when_over: str,
        ask_again: str,
        answers: str,
    ) -> io.NodeOutput:
        """Bundle the description."""
        waits = time_limit, when_over, answers, image_metadata(cls.hidden.extra_pnginfo)
        return io.NodeOutput(PaintedMasking(masking, ask_at, listed_steps, start_from, *waits))


class ELPauseSampling(io.ComfyNode):
    """Makes every sampler that runs the model wait for its user at chosen steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPauseSampling",
            display_name="Pause Sampling",
            category=CATEGORY,
            description="Before chosen steps any sampler stops and shows the picture that the model predicts. Go on, "
            "change the guidance, weights of words or the prompt for the rest of the run, blend in another one, end it "
            "there, or go back to an earlier stop for another variant. Only the browser that queued the run is asked; "
            "without one the run goes on at once.",
            search_aliases=[
                "pause",
                "interactive",
                "wait",
                "stop",
                "live",
                "cfg",
                "blend prompts",
                "live prompt",
                "rewind",
                "variants",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.String.Input(
                    "pause_at",
                    default="50%",
                    tooltip="Before which steps to stop: shares of the run (50%), step numbers (5, 18, 28) or ranges "
                    "(2-4), counted from 0 among the steps that are run; 1 is the first at which a picture is there. "
                    "Samplers that choose their own steps (dpm_adaptive) stop after as many of theirs.",
                ),
                *waiting_inputs(),
                io.Conditioning.Input(
                    "alternative",
                    optional=True,
                    tooltip="Another prompt, which you can blend in at a stop: 0 is the positive prompt, 1 this one.",
                ),
                Attention.Input(
                    "attention",
                    optional=True,
                    tooltip="From Capture Attention before this node: its heat maps are shown at the stops, and words "
                    "of its prompt can be given weights.",
                ),
                io.Clip.Input(
                    "clip",
                    optional=True,
                    tooltip="The CLIP that encodes the prompt: at a stop you can write another text for the rest of "
                    "the run.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler, KSampler (Advanced), SamplerCustom or a guider, with any sampler.",
                ),
                Report.Output(
                    display_name="report",
                    tooltip="What happened at each stop, and the answers, for Masked Latent Report.",
                ),
            ],
            hidden=[io.Hidden.extra_pnginfo],
        )

    @classmethod
    def fingerprint_inputs(cls, ask_again: str | None = None, answers: str | None = None, **_: Any) -> str:
        """A new value for each run that asks, and when the report has left ComfyUI's cache."""
        return fingerprint() + asked_again(ask_again, answers)

    @classmethod
    def validate_inputs(cls, pause_at: str | None = None, answers: str | None = None) -> bool | str:
        """Refuse steps and answers that cannot be read before anything is loaded."""
        return plan_problem("pause_at", pause_at, answers) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        pause_at: str,
        time_limit: int,
        when_over: str,
        ask_again: str,
        answers: str,
        alternative: Any = None,
        attention: Any = None,
        clip: Any = None,
    ) -> io.NodeOutput:
        """Install the pauses on a clone of the model."""
        patched = model.clone()
        metadata = image_metadata(cls.hidden.extra_pnginfo)
        plan = PausePlan(pause_at, time_limit, when_over, answers, alternative, clip, metadata)
        return io.NodeOutput(patched, tracked(install_pauses(patched, plan, attention)))


NODES = [ELPaintMask, ELPauseSampling]
