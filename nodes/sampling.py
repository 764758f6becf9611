"""KSampler (Masked Latent): the stock KSampler that replaces part of its latent at chosen steps."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from .core.methods.masked_latent import Policy
from .host.sampling.ksampler import sample_masked, sampler_names, scheduler_names, steps_problem
from .host.sampling.masked_latent import MaskedLatent
from .inputs import plan_inputs, seed_input, trajectory_input
from .sockets import CATEGORY, report_outputs


class ELMaskedLatentKSampler(io.ComfyNode):
    """Samples like the stock KSampler and overwrites part of the latent with the noised reference at a few steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskedLatentKSampler",
            display_name="KSampler (Masked Latent)",
            category=CATEGORY,
            description="A KSampler that, at a few steps, finds a mask and overwrites the latent outside (or inside) "
            "it with the noised reference. So a picture keeps its surroundings at noise levels where plain img2img "
            "would lose them.",
            search_aliases=[
                "masked latent",
                "latent replacement",
                "aggregated attention",
                "img2img",
                "keep background",
                "ksampler",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model used for denoising the latent."),
                seed_input("Seed of the noise, for the start and for the reference."),
                io.Int.Input(
                    "steps",
                    default=35,
                    min=1,
                    max=10000,
                    tooltip="The number of steps that are run. The papers' 50 steps at strength 0.7 are 35 steps at "
                    "denoise 0.7.",
                ),
                io.Float.Input(
                    "cfg",
                    default=8.0,
                    min=0.0,
                    max=100.0,
                    step=0.1,
                    round=0.01,
                    tooltip="Classifier-free guidance scale. Higher follows the prompt more. The papers use 8.",
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=sampler_names(),
                    default="ddpm",
                    tooltip="The algorithm used when sampling: any except dpm_fast and dpm_adaptive, which choose "
                    "their own steps. The papers use ddpm.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=scheduler_names(),
                    default="ddim_uniform",
                    tooltip="How noise is removed over the steps. ddim_uniform spaces the timesteps evenly, as the "
                    "papers do.",
                ),
                io.Conditioning.Input(
                    "positive", tooltip="What the picture shows: the prompt that Parse Subjects reads."
                ),
                io.Conditioning.Input("negative", tooltip="What the picture should not show."),
                io.Latent.Input(
                    "latent_image",
                    tooltip="The latent to start from: the encoded reference, or an empty latent for pure noise.",
                ),
                io.Float.Input(
                    "denoise",
                    default=0.7,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Strength: how much of the noise schedule is run. Lower keeps more of latent_image. The "
                    "papers use 0.7 and 0.9.",
                ),
                *plan_inputs(),
                io.Latent.Input(
                    "reference",
                    optional=True,
                    tooltip="The encoded reference picture, of the same size as the latent. If not connected, "
                    "latent_image is the reference.",
                ),
                trajectory_input(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The denoised latent."),
                *report_outputs(),
            ],
        )

    @classmethod
    def validate_inputs(
        cls,
        manipulate_at: str | None = None,
        steps: int | None = None,
        denoise: float | None = None,
        scheduler: str | None = None,
    ) -> bool | str:
        """Refuse steps that this run does not have before anything is loaded."""
        return steps_problem(manipulate_at, steps, denoise, scheduler) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        seed: int,
        steps: int,
        cfg: float,
        sampler_name: str,
        scheduler: str,
        positive: Any,
        negative: Any,
        latent_image: dict,
        denoise: float,
        masking: Any,
        manipulate_at: str,
        inside: str,
        outside: str,
        inside_timestep: int,
        outside_timestep: int,
        reference: dict | None = None,
        trajectory: Any = None,
    ) -> io.NodeOutput:
        """Sample."""
        policies = Policy(inside, inside_timestep), Policy(outside, outside_timestep)
        plan = MaskedLatent(masking, (reference or latent_image)["samples"], manipulate_at, *policies, trajectory)
        stock = (seed, steps, cfg, sampler_name, scheduler, positive, negative, latent_image, denoise)
        return io.NodeOutput(*sample_masked(model, stock, plan))


NODES = [ELMaskedLatentKSampler]
