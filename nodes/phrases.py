"""Structured Diffusion: each thing of a prompt keeps its own colour, since its phrase is also encoded alone."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .host.editing.phrases import described, phrases_alone
from .host.editing.structured_attention import install_structured_diffusion
from .host.same_prompt import Encoded
from .host.ui.running_node import show_on_running_node
from .sockets import CATEGORY, Subjects


class ELStructuredDiffusionModel(io.ComfyNode):
    """Makes every sampler that runs the model tell places what the prompt's phrases mean alone."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELStructuredDiffusionModel",
            display_name="Structured Diffusion (model patch)",
            category=CATEGORY,
            description="For any sampler node: a red car and a white sheep, without red on the sheep. Each phrase of "
            "the prompt is encoded alone as well, and where the picture looks at it, it is told what it means alone. "
            "No further model call. SD 1.x, SD 2.x and SDXL.",
            search_aliases=[
                "attribute binding",
                "colour bleeding",
                "color bleeding",
                "noun phrases",
                "cutoff",
                "patch",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.Clip.Input("clip", tooltip="The CLIP that encodes the prompt for the sampler."),
                Subjects.Input(
                    "subjects",
                    tooltip="From Parse Subjects or Prompt with Words, with the very text that is the sampler's "
                    "positive prompt. Only its text matters here, not which words are subjects.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="How far to go from the prompt as a whole (0, off) to the mean of it and of its phrases "
                    "(1, as published).",
                ),
                io.String.Input(
                    "phrases",
                    default="",
                    tooltip="Which phrases, separated by commas: red car, white sheep. Empty: all noun phrases that "
                    "the parser finds, without their articles. For prompts that are not English, name them.",
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
    def execute(cls, model: Any, clip: Any, subjects: Any, strength: float, phrases: str) -> io.NodeOutput:
        """Encode the phrases, install them on a clone of the model and show them on the node."""
        found, patched = phrases_alone(clip, subjects, phrases), model.clone()
        install_structured_diffusion(patched, subjects.prompt, Encoded.by(clip, subjects.prompt), found, strength)
        text = described((phrase.words, phrase.rows) for phrase in found)
        show_on_running_node(text)
        return io.NodeOutput(patched, text, ui=ui.PreviewText(text))


NODES = [ELStructuredDiffusionModel]
