"""Keep Words and Place Words: guidance of any sampler by a loss on the attention to the prompt's words."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.attention.refine import AUTO
from .core.methods.attend_and_excite import PUBLISHED_REFINEMENT, TOKENS, AttendAndExcite
from .core.methods.box_losses import LOSSES, BoxLoss
from .core.methods.guidance import COMPARED, CONSTANT, FALLING, LATENT, VARIANCE, Guidance
from .core.methods.word_places import placed
from .guidance_inputs import (
    form_inputs,
    guided_outputs,
    place_inputs,
    refinement_input,
    repeat_inputs,
    role_input,
    size_inputs,
    weight_input,
    when_inputs,
)
from .host.handles import fingerprint, tracked
from .host.sampling.word_guidance import WordGuidance
from .inputs import prompt_input
from .sockets import CATEGORY, Subjects

_KEEP_WORDS, _PLACE_WORDS = "Keep Words (Attend and Excite)", "Place Words"


class ELKeepWords(io.ComfyNode):
    """Makes every sampler that runs the model find a place for each word."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELKeepWords",
            display_name=_KEEP_WORDS,
            category=CATEGORY,
            description="So that nothing of the prompt is missing from the picture: in the first half of the run the "
            "latent is moved until the model looks at each of the words somewhere. For any sampler node; SD 1.x, SD "
            "2.x and SDXL.",
            search_aliases=["attend and excite", "missing subject", "catastrophic neglect", "two subjects", "guidance"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects or Prompt with Words."),
                *when_inputs("0-50%"),
                role_input(
                    "subject", "The words that the picture shall not lack: the subjects, the scene, or all of them."
                ),
                *size_inputs(LATENT, 20.0, FALLING),
                refinement_input(PUBLISHED_REFINEMENT, "the map of the worst word has a peak of at least this height"),
                io.Combo.Input(
                    "tokens",
                    options=list(TOKENS),
                    default=TOKENS[0],
                    advanced=True,
                    tooltip="What stands for a word that has several tokens: its last one, as published, or the mean "
                    "of all.",
                ),
                io.Combo.Input(
                    "compared_with",
                    options=list(COMPARED),
                    default=AUTO,
                    advanced=True,
                    tooltip="The tokens with which a word competes for each place. whole text: all but the first and "
                    "last, padding too (as published for SD 1.x). prompt words: those of the prompt alone. auto: the "
                    "first for SD 1.x, the second for SD 2.x and SDXL.",
                ),
                *form_inputs(
                    "auto: those 4 times coarser than the latent (published: 16x16 of 512 pixels; 32x32 of SDXL's 1024)"
                ),
                prompt_input(),
            ],
            outputs=guided_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """A new value when the node's output has left ComfyUI's cache, so that the sampler runs again."""
        return fingerprint()

    @classmethod
    def execute(
        cls,
        model: Any,
        subjects: Any,
        strength: float,
        steps: str,
        role: str,
        unit: str,
        step_size: float,
        schedule: str,
        refinement: str,
        tokens: str,
        compared_with: str,
        layers: str,
        act_on: str,
        positive: Any = None,
    ) -> io.NodeOutput:
        """Install the guidance on a clone of the model."""
        how = Guidance(strength, steps, unit, step_size, schedule, act_on, refinement)
        loss, patched = AttendAndExcite(tokens, compared_with), model.clone()
        plan = WordGuidance(_KEEP_WORDS, loss, subjects.with_role(role), how, layers, positive)
        return io.NodeOutput(patched, tracked(plan.install(patched)))


class ELPlaceWords(io.ComfyNode):
    """Makes every sampler that runs the model put each word's thing where it is asked for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPlaceWords",
            display_name=_PLACE_WORDS,
            category=CATEGORY,
            description="So that each thing is where you want it: early in the run the latent is moved until the model "
            "looks at each word inside of its box or mask (layout guidance, LLM-grounded diffusion, BoxDiff). For any "
            "sampler node; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["boxdiff", "layout guidance", "llm grounded diffusion", "bounding box", "position"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects or Prompt with Words."),
                *place_inputs(),
                *when_inputs("0-20%"),
                io.Combo.Input(
                    "loss",
                    options=list(LOSSES),
                    default=LOSSES[0],
                    tooltip="box share: how much of a word's attention is outside (layout guidance). top values: how "
                    "weak its strongest places inside are, and how strong those outside (LLM-grounded diffusion). "
                    "BoxDiff: the same on the maps of Keep Words, with the box's edges. The presets set what belongs "
                    "to each.",
                ),
                role_input("all", "The words that boxes may name, or that the masks are for, in order."),
                *size_inputs(VARIANCE, 30.0, CONSTANT),
                *repeat_inputs("5", 0.2),
                refinement_input("", "the strongest places inside of the worst word's box are in the mean this strong"),
                weight_input("inside_weight", "Of attention inside, for top values and BoxDiff."),
                weight_input("outside_weight", "Of attention outside, for top values (published: 4) and BoxDiff (1)."),
                weight_input("edge_weight", "Of the box's edges, for BoxDiff: that a thing fills its box."),
                *form_inputs(
                    "auto: the middle and the first layers after it, or for BoxDiff those 4 times coarser than the "
                    "latent (as published)"
                ),
                prompt_input(),
            ],
            outputs=guided_outputs(),
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """A new value when the node's output has left ComfyUI's cache, so that the sampler runs again."""
        return fingerprint()

    @classmethod
    def execute(
        cls,
        model: Any,
        subjects: Any,
        strength: float,
        steps: str,
        loss: str,
        role: str,
        unit: str,
        step_size: float,
        schedule: str,
        repeats: str,
        until: float,
        stop_for_good: bool,
        refinement: str,
        inside_weight: float,
        outside_weight: float,
        edge_weight: float,
        layers: str,
        act_on: str,
        layout: Any = None,
        masks: Any = None,
        positive: Any = None,
    ) -> io.NodeOutput:
        """Install the guidance on a clone of the model."""
        again = {"refinement": refinement, "repeats": repeats, "until": until, "stop_for_good": stop_for_good}
        how = Guidance(strength, steps, unit, step_size, schedule, act_on, **again)
        words, places = placed(subjects.with_role(role), layout, masks)
        own, patched = BoxLoss(places, loss, inside_weight, outside_weight, edge_weight), model.clone()
        plan = WordGuidance(_PLACE_WORDS, own, words, how, layers, positive, places)
        return io.NodeOutput(patched, tracked(plan.install(patched)))


NODES = [ELKeepWords, ELPlaceWords]
