"""Show Attention: a normal generation and where the model looks at its words, in one node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.maps.saliency import OVER_STEPS
from .core.words.parsing import SELECTIONS
from .host.sampling.ksampler import sampler_names, scheduler_names
from .host.shown_generation import generate_and_show
from .inputs import seed_input
from .prompt_inputs import extent_input, override_input, parser_input, selection_input
from .sockets import CATEGORY, Saliency


class ELShowAttention(io.ComfyNode):
    """Encodes a prompt, samples as the stock KSampler does, and shows where the model looked at its words."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELShowAttention",
            display_name="Show Attention",
            category=CATEGORY,
            description="A normal generation that shows where the model looks at each word of the prompt: CLIP Text "
            "Encode, KSampler and VAE Decode in one node, whose result is theirs bit for bit. SD 1.x, SD 2.x, SDXL and "
            "many transformers.",
            search_aliases=["attention map", "cross attention", "daam", "heat map", "explain", "ksampler"],
            is_output_node=True,
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="SD 1.x, SD 2.x, SDXL or a transformer that the help page of Capture Attention lists, with "
                    "its patches.",
                ),
                io.Clip.Input("clip", tooltip="The CLIP that encodes both prompts."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The latent to start from: an empty latent, or an encoded picture with denoise below 1.",
                ),
                io.String.Input(
                    "text",
                    multiline=True,
                    dynamic_prompts=True,
                    default="a dog on the beach",
                    tooltip="The prompt, with weights, escapes and embeddings as CLIP Text Encode takes them.",
                ),
                override_input(),
                io.String.Input(
                    "negative",
                    multiline=True,
                    dynamic_prompts=True,
                    default="",
                    tooltip="What the picture should not show.",
                ),
                seed_input("Seed of the noise."),
                io.Int.Input(
                    "steps",
                    default=20,
                    min=1,
                    max=10000,
                    tooltip="The number of steps. More take longer and may add detail.",
                ),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance scale. Higher follows the prompt more.",
                ),
                io.Combo.Input(
                    "sampler_name", options=sampler_names(), tooltip="The algorithm used when sampling: any sampler."
                ),
                io.Combo.Input("scheduler", options=scheduler_names(), tooltip="How noise is removed over the steps."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much of the noise schedule is run. Lower keeps more of latent_image.",
                ),
                parser_input(advanced=True),
                extent_input(),
                io.Combo.Input(
                    "over_steps",
                    options=list(OVER_STEPS),
                    default=OVER_STEPS[0],
                    advanced=True,
                    tooltip="Of the output saliency. mean: every step has the same weight. last: the last step. each: "
                    "one map per step. sum: a step with more attention to the word has more weight, as in DAAM. The "
                    "inspector on the node has the mean and every step.",
                ),
                selection_input(),
                io.Vae.Input(
                    "vae",
                    optional=True,
                    tooltip="The checkpoint's VAE: with it the picture is decoded, and the maps are shown over it.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The denoised latent, that of KSampler bit for bit."),
                io.Image.Output(display_name="image", tooltip="The picture, as VAE Decode gives it; needs a vae."),
                Saliency.Output(display_name="saliency", tooltip="One map per word (and step) and latent."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        clip: Any,
        latent_image: dict,
        text: str,
        override: str,
        negative: str,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        denoise: float,
        parser: str,
        words: str,
        over_steps: str,
        which: str = SELECTIONS[0],
        vae: Any = None,
    ) -> io.NodeOutput:
        """Generate, and show the maps on the node."""
        prompt = text, override, parser, words, which
        stock = seed, steps, cfg, sampler_name, scheduler, latent_image, denoise
        made = generate_and_show(model, clip, vae, prompt, negative, stock, over_steps)
        shown = {**ui.PreviewImage(made.sheet, cls=cls).as_dict(), **made.shown}
        return io.NodeOutput(made.latent, made.image, made.saliency, ui=shown)


NODES = [ELShowAttention]
