"""Capture Attention, Attention Saliency, Probe Attention: where the prompt's words look, as maps."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.maps.saliency import OVER_STEPS
from .host.attention.observer import observe
from .host.handles import fingerprint, tracked
from .host.one_call import probe
from .inputs import prompt_input, reading_inputs, refine_input, region_input, seed_input
from .sockets import CATEGORY, Attention, Saliency, Subjects


class ELCaptureAttention(io.ComfyNode):
    """Watches the cross-attention of a model while any sampler runs it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELCaptureAttention",
            display_name="Capture Attention",
            category=CATEGORY,
            description="Watches where the prompt's words look while a sampler runs. The picture stays the same bit "
            "for bit, with every sampler, attention backend and model patch. SD 1.x, SD 2.x, SDXL.",
            search_aliases=["attention map", "cross attention", "daam", "heat map", "explain"],
            inputs=[
                io.Model.Input("model", tooltip="SD 1.x, SD 2.x or SDXL. The order among other model patches is free."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Capture from this part of the noise schedule on: 0 is pure noise.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Capture up to this part of the noise schedule: 1 is the clean picture.",
                ),
                *reading_inputs(),
                prompt_input(),
                refine_input(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model to sample with."),
                Attention.Output(
                    display_name="attention",
                    tooltip="What is seen while that model samples; read it with Attention Saliency.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """New when what the node gave is gone, so that the sampler runs again."""
        return fingerprint()

    @classmethod
    def execute(
        cls,
        model: Any,
        subjects: Any,
        start_percent: float,
        end_percent: float,
        layers: str,
        resize: str,
        share: str,
        positive: Any = None,
        refine: int = 0,
    ) -> io.NodeOutput:
        """Install the observer on a clone of the model."""
        observed = model.clone()
        capture = observe(
            observed,
            subjects,
            layers=layers,
            start_percent=start_percent,
            end_percent=end_percent,
            positive=positive,
            resize=resize,
            share=share,
            refine=refine,
        )
        return io.NodeOutput(observed, tracked(capture))


class ELAttentionSaliency(io.ComfyNode):
    """Turns what Capture Attention saw into saliency maps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELAttentionSaliency",
            display_name="Attention Saliency",
            category=CATEGORY,
            description="The maps that Capture Attention gathered while a sampler ran: attention of each word, "
            "summed over heads and layers, normalised to sum 1.",
            search_aliases=["attention map", "cross attention", "aggregate attention", "heat map", "daam"],
            inputs=[
                Attention.Input("attention", tooltip="From Capture Attention."),
                io.Latent.Input(
                    "samples",
                    tooltip="The latent that the sampler made with the captured model. It makes this node wait for "
                    "the sampler, and tells which sampler is meant when several used that model.",
                ),
                io.Combo.Input(
                    "role",
                    options=["all", "subject", "scene"],
                    default="all",
                    tooltip="Which of the words: all of them, the subjects, or the scene.",
                ),
                io.Combo.Input(
                    "over_steps",
                    options=list(OVER_STEPS),
                    default=OVER_STEPS[0],
                    tooltip="mean: every captured step counts alike. last: the last captured step. each: one map per "
                    "step. sum: a step counts as much as attention goes to the word in it, as in DAAM.",
                ),
                io.Boolean.Input(
                    "each_layer",
                    default=False,
                    advanced=True,
                    tooltip="For inspection: one map per cross-attention layer, summed over the steps, instead of "
                    "their sum. over_steps does not matter then.",
                ),
            ],
            outputs=[
                Saliency.Output(display_name="saliency", tooltip="One map per word (and step, or layer) and latent.")
            ],
        )

    @classmethod
    def execute(cls, attention: Any, samples: Any, role: str, over_steps: str, each_layer: bool) -> io.NodeOutput:
        """Read the run that made this latent."""
        return io.NodeOutput(attention.saliency(samples["samples"], role, over_steps, each_layer))


class ELProbeAttention(io.ComfyNode):
    """Reads where the prompt's words look in an existing picture, without sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELProbeAttention",
            display_name="Probe Attention",
            category=CATEGORY,
            description="Where do these words look in this picture? Its latent is noised to one level and the model "
            "is called once; nothing is sampled. SD 1.x, SD 2.x, SDXL.",
            search_aliases=["attention map", "segment by prompt", "prompt mask", "cross attention", "daam"],
            inputs=[
                io.Model.Input("model", tooltip="SD 1.x, SD 2.x or SDXL, with its patches."),
                io.Conditioning.Input("positive", tooltip="The prompt that describes the picture, encoded."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode; a batch gives maps for each."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                io.Float.Input(
                    "noise_level",
                    default=0.3,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise is put over the picture, from clean (0) to pure noise (1). Less noise "
                    "gives finer maps; 0.2 to 0.5 is a good range.",
                ),
                seed_input("Seed of that noise."),
                *reading_inputs(),
                region_input(),
                refine_input(),
            ],
            outputs=[
                Saliency.Output(display_name="saliency", tooltip="One map per word and latent, each summing to 1.")
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        latent: Any,
        subjects: Any,
        noise_level: float,
        seed: int,
        layers: str,
        resize: str,
        share: str,
        region: Any = None,
        refine: int = 0,
    ) -> io.NodeOutput:
        """Call the model once."""
        how = {"layers": layers, "resize": resize, "share": share, "refine": refine}
        return io.NodeOutput(probe(model, positive, latent, subjects, noise_level, seed, region, **how))


NODES = [ELCaptureAttention, ELAttentionSaliency, ELProbeAttention]
