"""Guide Shape: guidance of any sampler by where a word's thing is, how large, and of which shape."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.methods.guidance import CONSTANT, RELATIVE, Guidance
from .core.methods.self_guidance import POSITIONS, SIZES, SelfGuidance, changed_words
from .guidance_inputs import (
    form_inputs,
    guided_outputs,
    repeat_inputs,
    role_input,
    size_inputs,
    when_inputs,
)
from .host.handles import fingerprint, tracked
from .host.sampling.word_guidance import WordGuidance
from .inputs import prompt_input
from .sockets import CATEGORY, Subjects

_GUIDE_SHAPE = "Guide Shape (self-guidance)"


class ELGuideShape(io.ComfyNode):
    """Makes every sampler that runs the model move and resize a word's thing."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELGuideShape",
            display_name=_GUIDE_SHAPE,
            category=CATEGORY,
            description="The same picture, but a thing further left, higher, larger or smaller: the latent is moved "
            "until the model looks at the word elsewhere than in the run without this node, which is made beforehand "
            "(self-guidance). Other things stay as they are. For any sampler node; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["self-guidance", "move object", "resize object", "position", "size", "centroid"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects or Prompt with Words."),
                *when_inputs("0-50%"),
                io.String.Input(
                    "words",
                    default="",
                    tooltip="The words whose things are moved or resized, separated by commas: cat, dog#2. The others "
                    "are kept as they are. Empty: all words of this role.",
                ),
                io.Combo.Input(
                    "position",
                    options=list(POSITIONS),
                    default=POSITIONS[0],
                    tooltip="moved by: x to the right and y down of where it is without this node. at: its centre is "
                    "at x, y. free: anywhere.",
                ),
                _place_input("x", "To the right, as a share of the picture's width; negative: to the left."),
                _place_input("y", "Down, as a share of the picture's height; negative: up."),
                io.Combo.Input(
                    "size",
                    options=list(SIZES),
                    default=SIZES[0],
                    tooltip="times: so many times the area that it has without this node. share: that share of the "
                    "picture. free: of any size.",
                ),
                io.Float.Input(
                    "amount",
                    default=1.0,
                    min=0.01,
                    max=100.0,
                    step=0.05,
                    tooltip="Of size, as an area: times 2 is 1.4 times as wide and as high, times 1 is as large; share "
                    "0.25 is a quarter of the picture.",
                ),
                _kept_input("keep_shape", 0.0, "the words' shape without this node, moved and resized as asked"),
                _kept_input("keep_others", 1.0, "place and shape of the other words without this node"),
                role_input(
                    "subject",
                    "The words that count: those to be changed, and those to be kept. Of all, the scene is kept, too, "
                    "and gives way less where a thing is to go.",
                ),
                *size_inputs(RELATIVE, 0.05, CONSTANT),
                *repeat_inputs("3", 0.0),
                *form_inputs("auto: those 4 times coarser than the latent"),
                prompt_input(),
                _kept_input(
                    "keep_appearance",
                    0.0,
                    "the look (colours, texture) that the things of all these words have without this node",
                    optional=True,
                ),
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
        words: str,
        position: str,
        x: float,
        y: float,
        size: str,
        amount: float,
        keep_shape: float,
        keep_others: float,
        role: str,
        unit: str,
        step_size: float,
        schedule: str,
        repeats: str,
        until: float,
        stop_for_good: bool,
        layers: str,
        act_on: str,
        positive: Any = None,
        keep_appearance: float = 0.0,
    ) -> io.NodeOutput:
        """Install the guidance on a clone of the model."""
        again = {"repeats": repeats, "until": until, "stop_for_good": stop_for_good}
        how, counted = Guidance(strength, steps, unit, step_size, schedule, act_on, **again), subjects.with_role(role)
        changed, patched = changed_words(words, counted), model.clone()
        loss = SelfGuidance(changed, position, x, y, size, amount, keep_shape, keep_others, keep_appearance)
        plan = WordGuidance(_GUIDE_SHAPE, loss, counted, how, layers, positive)
        return io.NodeOutput(patched, tracked(plan.install(patched)))


def _place_input(name: str, tooltip: str) -> io.Input:
    """A coordinate of a place."""
    at = "With position at: from 0 (left, top) to 1."
    return io.Float.Input(name, default=0.0, min=-1.0, max=1.0, step=0.01, tooltip=f"{tooltip} {at}")


def _kept_input(name: str, weight: float, what: str, *, optional: bool = False) -> io.Input:
    """How much it counts that something stays. optional: workflows may lack it."""
    how = {"default": weight, "min": 0.0, "max": 100.0, "step": 0.05, "optional": optional}
    return io.Float.Input(name, tooltip=f"How much it counts to keep {what}, beside the change. 0: not at all.", **how)


NODES = [ELGuideShape]
