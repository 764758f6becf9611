"""Place Phrases: each phrase of a prompt in the part of the picture that it is meant for (DenseDiffusion)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.methods.dense_diffusion import ELSEWHERE, DenseDiffusion
from .core.methods.prompt_to_prompt import Window
from .editing_inputs import share_input
from .guidance_inputs import place_inputs, role_input
from .host.editing.dense_diffusion import install_dense_diffusion
from .host.editing.phrases import described
from .host.editing.placed_phrases import place_phrases
from .host.ui.running_node import show_on_running_node
from .sockets import CATEGORY, Subjects


class ELDenseDiffusionModel(io.ComfyNode):
    """Makes every sampler that runs the model look at each phrase where it is asked for."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELDenseDiffusionModel",
            display_name="Place Phrases (DenseDiffusion)",
            category=CATEGORY,
            description="So that each thing is where you want it, without gradients: early in the run attention to a "
            "phrase of the prompt is raised in its box or mask and lowered elsewhere, and places of one part look at "
            "each other. For any sampler node; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["densediffusion", "dense diffusion", "segments", "layout", "attention modulation", "patch"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the prompt for the sampler."),
                Subjects.Input(
                    "subjects",
                    tooltip="From Parse Subjects or Prompt with Words, with the very text that is the sampler's "
                    "positive prompt. Each word stands for its whole phrase (dog: a red dog).",
                ),
                *place_inputs(),
                _strength("cross_strength", 1.0, 2.0, "How strongly words are held in their places (published: 1)."),
                _strength(
                    "self_strength",
                    0.3,
                    2.0,
                    "How strongly places look at those of the same part (published: 0.3). More separates the parts.",
                ),
                share_input(
                    "end", 0.3, "Until which share of the steps (published: 0.3). The layout is decided early."
                ),
                role_input("all", "The words that boxes may name, or that the masks are for, in order."),
                io.Combo.Input(
                    "elsewhere",
                    options=list(ELSEWHERE),
                    default=ELSEWHERE[0],
                    tooltip="Places in no box or mask. as it is: as without this node. flattened: they look at "
                    "everything more evenly, as the paper's equations say, which is meant for layouts that cover the "
                    "whole picture.",
                ),
                io.Boolean.Input(
                    "phrases_alone",
                    default=True,
                    advanced=True,
                    tooltip="on, as published for SD 1.x: each placed phrase is also encoded alone, and these tokens "
                    "take the place of those in the prompt, at all steps. off, as published for other models.",
                ),
                _strength(
                    "size_regularisation",
                    1.0,
                    1.0,
                    "How much less is changed in large parts than in small ones (published: 1).",
                    advanced=True,
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler, KSampler (Advanced), SamplerCustom or a guider, with any sampler.",
                ),
                io.String.Output(
                    display_name="phrases", tooltip="A line for each phrase, with its tokens in the encoded prompt."
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        subjects: Any,
        cross_strength: float,
        self_strength: float,
        end: float,
        role: str,
        elsewhere: str,
        phrases_alone: bool,
        size_regularisation: float,
        layout: Any = None,
        masks: Any = None,
    ) -> io.NodeOutput:
        """Place the phrases on a clone of the model, and show them on the node."""
        window = Window(0.0, end)
        method = DenseDiffusion(cross_strength, self_strength, size_regularisation, window, elsewhere)
        placed, patched = place_phrases(clip, subjects.with_role(role), layout, masks, phrases_alone), model.clone()
        install_dense_diffusion(patched, placed, method)
        text = described(zip(placed.words, placed.rows, strict=True))
        show_on_running_node(text)
        return io.NodeOutput(patched, text, ui=ui.PreviewText(text))


def _strength(name: str, default: float, most: float, tooltip: str, advanced: bool = False) -> io.Input:
    how = {"default": default, "min": 0.0, "max": most, "step": 0.05, "advanced": advanced}
    return io.Float.Input(name, tooltip=f"{tooltip} 0: off.", **how)


NODES = [ELDenseDiffusionModel]
