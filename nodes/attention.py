"""Capture Attention, Probe Attention: where the prompt's words look, while sampling or in an existing picture."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.attention.aggregate import RESIZE_MODES
from .host.attention.observer import SHARES, observe
from .host.handles import fingerprint, given
from .host.one_call import probe
from .prompt_inputs import prompt_input, region_input
from .sockets import Attention, Saliency, Subjects

CATEGORY = "explainable latents"


def _reading_inputs() -> list[io.Input]:
    """The inputs that say how attention is read, common to both nodes."""
    return [
        io.String.Input(
            "layers",
            default="all",
            advanced=True,
            tooltip="Cross-attention layers that count: all (as published), last, grids (16x16, height x width) or "
            "names (output, output.5), separated by commas.",
        ),
        io.Combo.Input(
            "resize",
            options=list(RESIZE_MODES),
            default=RESIZE_MODES[0],
            advanced=True,
            tooltip="How the coarser layers are brought to the latent's grid: nearest (as published) or bilinear "
            "(smoother).",
        ),
        io.Combo.Input(
            "share",
            options=list(SHARES),
            default=SHARES[0],
            advanced=True,
            tooltip="Share of what. all tokens: the plain probability (as published), where the begin-of-text token "
            "takes most. prompt words: renormalised over the prompt's own tokens.",
        ),
    ]


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
                *_reading_inputs(),
                prompt_input(),
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
        )
        return io.NodeOutput(observed, given(capture))


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
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=True,
                    tooltip="Seed of that noise.",
                ),
                *_reading_inputs(),
                region_input(),
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
    ) -> io.NodeOutput:
        """Call the model once."""
        how = {"layers": layers, "resize": resize, "share": share}
        return io.NodeOutput(probe(model, positive, latent, subjects, noise_level, seed, region, **how))
