"""Capture Attention, Attention Saliency, Probe Attention: where the model looks at the prompt's words, as maps."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.attention.looked_for import READINGS
from .core.attention.output_space import SPACES
from .core.attention.refine import AUTO
from .core.maps.saliency import OVER_STEPS
from .core.words.subjects import LOOKED_FOR, OTHER
from .host.attention.observer import observe
from .host.handles import fingerprint, tracked
from .host.one_call import probe
from .inputs import later_inputs, look_for_inputs, prompt_input, reading_inputs, refine_inputs, region_input, seed_input
from .sockets import CATEGORY, Attention, Saliency, Subjects


class ELCaptureAttention(io.ComfyNode):
    """Records the cross-attention of a model while any sampler runs it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELCaptureAttention",
            display_name="Capture Attention",
            category=CATEGORY,
            description="Records where the model looks at the prompt's words while a sampler runs. The picture stays "
            "the same bit for bit, with every sampler, attention backend and model patch. SD 1.x, SD 2.x, SDXL and "
            "many transformers.",
            search_aliases=["attention map", "cross attention", "daam", "heat map", "explain"],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD 1.x, SD 2.x, SDXL or a transformer that the help page lists. Other model patches may "
                    "come before or after this node.",
                ),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                io.Float.Input(
                    "start_percent",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where in the noise schedule capturing begins: 0 is pure noise, 1 the clean picture.",
                ),
                io.Float.Input(
                    "end_percent",
                    default=1.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="Where in the noise schedule capturing ends: 0 is pure noise, 1 the clean picture.",
                ),
                *reading_inputs(),
                prompt_input(),
                *refine_inputs(),
                *look_for_inputs(),
                *later_inputs(),
            ],
            outputs=[
                io.Model.Output(display_name="model", tooltip="The model to sample with."),
                Attention.Output(
                    display_name="attention",
                    tooltip="The attention that is recorded while that model samples; read it with Attention Saliency.",
                ),
            ],
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
        start_percent: float,
        end_percent: float,
        layers: str,
        resize: str,
        share: str,
        positive: Any = None,
        refine: int = 0,
        refine_layers: str = AUTO,
        clip: Any = None,
        look_for: str = "",
        reading: str = READINGS[0],
        space: str = SPACES[0],
        all_words: bool = False,
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
            refine_layers=refine_layers,
            clip=clip,
            look_for=look_for,
            reading=reading,
            space=space,
            all_words=all_words,
        )
        return io.NodeOutput(observed, tracked(capture))


class ELAttentionSaliency(io.ComfyNode):
    """Turns what Capture Attention recorded into saliency maps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELAttentionSaliency",
            display_name="Attention Saliency",
            category=CATEGORY,
            description="The maps that Capture Attention recorded while a sampler ran: the attention to each word, "
            "summed over heads and layers, normalised to sum 1.",
            search_aliases=["attention map", "cross attention", "aggregate attention", "heat map", "daam"],
            inputs=[
                Attention.Input("attention", tooltip="From Capture Attention."),
                io.Latent.Input(
                    "samples",
                    tooltip="The latent that the sampler made with the captured model. It makes this node wait for the "
                    "sampler, and shows which sampler is meant if several used that model.",
                ),
                io.Combo.Input(
                    "role",
                    options=["all", "subject", "scene", LOOKED_FOR, OTHER],
                    default="all",
                    tooltip="The words whose maps are made: all of them, the subjects, the scene, those in look_for of "
                    "Capture Attention, or the other words (with its all_words).",
                ),
                io.Combo.Input(
                    "over_steps",
                    options=list(OVER_STEPS),
                    default=OVER_STEPS[0],
                    tooltip="mean: every captured step has the same weight. last: the last captured step. each: one "
                    "map per step. sum: a step with more attention to the word has more weight, as in DAAM.",
                ),
                io.Boolean.Input(
                    "each_layer",
                    default=False,
                    advanced=True,
                    tooltip="For inspection: one map per cross-attention layer, summed over the steps, instead of the "
                    "sum of the layers. over_steps then has no effect.",
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
    """Reads where in an existing picture the model looks at the prompt's words, without sampling."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELProbeAttention",
            display_name="Probe Attention",
            category=CATEGORY,
            description="Where in this picture does the model look at each word? The picture's latent is noised to one "
            "level and the model is called once; nothing is sampled. SD 1.x, SD 2.x, SDXL and many transformers.",
            search_aliases=["attention map", "segment by prompt", "prompt mask", "cross attention", "daam"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="SD 1.x, SD 2.x, SDXL or a transformer that the help page lists, with its patches."
                ),
                io.Conditioning.Input("positive", tooltip="The prompt that describes the picture, encoded."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode; a batch gives maps for each."),
                Subjects.Input("subjects", tooltip="The prompt's words, from Parse Subjects."),
                io.Float.Input(
                    "noise_level",
                    default=0.3,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise is added to the picture, from none (0) to pure noise (1). Less noise makes "
                    "finer maps; 0.2 to 0.5 is a good range.",
                ),
                seed_input("Seed of that noise."),
                *reading_inputs(),
                region_input(),
                *refine_inputs(),
                *look_for_inputs(),
                *later_inputs(),
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
        refine_layers: str = AUTO,
        clip: Any = None,
        look_for: str = "",
        reading: str = READINGS[0],
        space: str = SPACES[0],
        all_words: bool = False,
    ) -> io.NodeOutput:
        """Call the model once."""
        how = {"layers": layers, "resize": resize, "share": share, "refine": refine, "refine_layers": refine_layers}
        how |= {"clip": clip, "look_for": look_for, "reading": reading, "space": space, "all_words": all_words}
        return io.NodeOutput(probe(model, positive, latent, subjects, noise_level, seed, region, **how))


NODES = [ELCaptureAttention, ELAttentionSaliency, ELProbeAttention]
