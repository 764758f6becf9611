"""Classifier Guidance: guidance of any sampler by a score of the predicted picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.methods.guidance import CONSTANT, PREDICTION, RELATIVE, SCORE, Guidance
from .guidance_inputs import act_input, guided_outputs, schedule_input, when_inputs
from .host.handles import fingerprint, tracked
from .host.picture_scores import heads, scores_of
from .host.sampling.classifier_guidance import guide_by_pictures
from .sockets import CATEGORY

_NAME = "Classifier Guidance"


class ELClassifierGuidance(io.ComfyNode):
    """Makes every sampler that runs the model go towards pictures with a better score."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        how_much = {"default": 1.0, "min": 0.0, "max": 100.0, "step": 0.05, "advanced": True}
        return io.Schema(
            node_id="ELClassifierGuidance",
            display_name=_NAME,
            category=CATEGORY,
            description="So that the picture scores better: while it is sampled, the picture that the model predicts "
            "is decoded and shown to a CLIP image encoder, and the latent is moved towards a better match with a text "
            "or better ratings. For any sampler node; SD 1.x, SD 2.x and SDXL.",
            search_aliases=["clip guidance", "universal guidance", "aesthetic", "aesthetics", "reward", "score"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.Vae.Input("vae", tooltip="Decodes what the model predicts: that of the checkpoint."),
                io.ClipVision.Input("clip_vision", tooltip="Looks at the picture: from Load CLIP Vision."),
                io.Conditioning.Input(
                    "text",
                    optional=True,
                    tooltip="What the picture shall show, from CLIP Text Encode. Its text encoder must be of the same "
                    "CLIP model as clip_vision: ViT-L (clip_l.safetensors in Load CLIP), or ViT-bigG (SDXL's own).",
                ),
                io.Combo.Input(
                    "aesthetics",
                    options=heads(),
                    tooltip="A predictor of people's ratings, from models/classifiers: LAION's linear or improved "
                    "aesthetic predictor as safetensors, for the image encoder that it was trained with. none: "
                    "without.",
                ),
                *when_inputs("0-100%", "times step_size"),
                io.Float.Input("text_weight", tooltip="How much the text counts. 0: not at all.", **how_much),
                io.Float.Input("aesthetics_weight", tooltip="How much ratings count. 0: not at all.", **how_much),
                io.Combo.Input(
                    "unit",
                    options=[RELATIVE, SCORE],
                    default=RELATIVE,
                    advanced=True,
                    tooltip="Of step_size. relative: the mean change as a share of sigma, whatever the score (0.02 to "
                    "0.1). score: what the prediction changes by is this times sigma² times the slope of the score "
                    "(classifier guidance as published; for CLIP hundreds and more).",
                ),
                io.Float.Input(
                    "step_size",
                    default=0.03,
                    min=0.0,
                    max=100000.0,
                    step=0.01,
                    advanced=True,
                    tooltip="How far one step moves the latent, in this unit.",
                ),
                schedule_input(CONSTANT),
                act_input(PREDICTION),
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
        vae: Any,
        clip_vision: Any,
        aesthetics: str,
        strength: float,
        steps: str,
        text_weight: float,
        aesthetics_weight: float,
        unit: str,
        step_size: float,
        schedule: str,
        act_on: str,
        text: Any = None,
    ) -> io.NodeOutput:
        """Install the guidance on a clone of the model."""
        how, patched = Guidance(strength, steps, unit, step_size, schedule, act_on), model.clone()
        scores = scores_of(text, text_weight, aesthetics, aesthetics_weight)
        report = guide_by_pictures(patched, _NAME, vae, clip_vision, scores, how)
        return io.NodeOutput(patched, tracked(report))


NODES = [ELClassifierGuidance]
