"""Invert Picture, Edit-Friendly Inversion: from a picture to the noise that leads to it."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.methods.inversion import LABELS, RULES
from .host.editing.edit_friendly import invert_edit_friendly
from .host.editing.own_run import Guided, schedule
from .host.editing.two_steps import invert_by
from .host.sampling.ksampler import scheduler_names
from .host.ui.running_node import show_on_running_node
from .inputs import seed_input
from .sockets import CATEGORY, Trajectory


def _picture_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="The model that will sample, with its LoRAs."),
        io.Conditioning.Input("positive", tooltip="The prompt that describes the picture as it is; it may be empty."),
        io.Conditioning.Input("negative", tooltip="The negative prompt. At cfg 1 it takes no part."),
        io.Latent.Input("latent", tooltip="The picture, from VAE Encode; of a batch each is inverted."),
    ]


def _schedule_inputs(steps: int, cfg: float, advice: str) -> list[io.Input]:
    return [
        io.Int.Input(
            "steps", default=steps, min=1, max=10000, tooltip=f"Steps; the sampler has to make the same. {advice}"
        ),
        io.Combo.Input("scheduler", options=scheduler_names(), default="normal", tooltip="That of the sampler."),
        io.Float.Input(
            "cfg",
            default=cfg,
            min=0.0,
            max=30.0,
            step=0.1,
            tooltip="Guidance of the inversion (published: 1 for DDIM and Direct Inversion, 3.5 for edit-friendly). "
            "The edit has its own in the sampler.",
        ),
    ]


def _last_inputs() -> list[io.Input]:
    return [
        io.Sigmas.Input(
            "sigmas",
            optional=True,
            advanced=True,
            tooltip="The noise levels of a SamplerCustom, down to 0, in place of steps, scheduler and denoise.",
        ),
        io.Vae.Input(
            "vae", optional=True, tooltip="With it the report has the PSNR of the round trip, in the decoded pictures."
        ),
    ]


def _outputs() -> list[io.Output]:
    return [
        Trajectory.Output(
            display_name="trajectory",
            tooltip="The picture at every noise level, on the CPU: for Twin Sampling (source_path recorded) and Masked "
            "Latent (recorded path).",
        ),
        io.Latent.Output(
            display_name="latent",
            tooltip="The picture at the first noise level, for KSampler (Advanced) with add_noise disabled.",
        ),
    ]


class ELInvertPicture(io.ComfyNode):
    """Finds the noise from which a model makes a given picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELInvertPicture",
            display_name="Invert Picture",
            category=CATEGORY,
            description="Finds the noise from which the model makes this very picture (DDIM inversion, exact with "
            "fixed-point iterations), and records the way there, for editing real pictures. The report says how well "
            "the picture comes back.",
            search_aliases=[
                "inversion",
                "ddim",
                "unsampler",
                "direct inversion",
                "fixed point",
                "flip sigmas",
                "noise",
            ],
            inputs=[
                *_picture_inputs(),
                *_schedule_inputs(50, 1.0, "More come closer to the picture."),
                io.Float.Input(
                    "denoise",
                    default=1.0,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How far into the noise, as in the sampler: 1 is all the way. Less keeps more of the "
                    "picture.",
                ),
                io.Int.Input(
                    "iterations",
                    default=5,
                    min=0,
                    max=50,
                    tooltip="Fixed-point iterations at each step; each costs a model call. 0 is plain DDIM inversion, "
                    "whose way back misses the picture; with 5 the report shows an almost exact one at cfg 1.",
                ),
                io.Combo.Input(
                    "label",
                    options=list(LABELS),
                    default=LABELS[0],
                    advanced=True,
                    tooltip="Which noise level the model is told in a step of DDIM inversion. higher level: the one it "
                    "leads to (diffusers, Prompt-to-Prompt). lower level: the one it comes from (Plug-and-Play).",
                ),
                io.Boolean.Input(
                    "try_back",
                    default=True,
                    advanced=True,
                    tooltip="Sample the picture back and report how close it comes: one more model call for each step.",
                ),
                io.Combo.Input(
                    "rule",
                    options=list(RULES),
                    default=RULES[0],
                    optional=True,
                    advanced=True,
                    tooltip="How one noise level leads to the next. euler: from one state, for any sampler. two steps: "
                    "from two, exact at any cfg for one model call a step, with this node's SAMPLER; iterations are "
                    "of the first step alone.",
                ),
                *_last_inputs(),
            ],
            outputs=[
                *_outputs(),
                io.Latent.Output(
                    display_name="round_trip",
                    tooltip="What sampling back gave, with the same prompt, cfg and euler; needs try_back.",
                ),
                io.String.Output(display_name="report", tooltip="Schedule, last change, start and round trip."),
                io.Sampler.Output(
                    display_name="sampler",
                    tooltip="What comes back, for SamplerCustom with these noise levels: euler, or the rule of two "
                    "steps, which begins with the inverted states, whatever add_noise and seed say.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: dict,
        steps: int,
        scheduler: str,
        cfg: float,
        denoise: float,
        iterations: int,
        label: str,
        try_back: bool,
        rule: str = RULES[0],
        sigmas: Any = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        """Invert, and show the report on the node."""
        levels = schedule(model, steps, scheduler, denoise, sigmas)
        guided = Guided(model, positive, negative, cfg)
        found, sampler = invert_by(rule, guided, latent, levels, iterations, label, try_back, vae)
        show_on_running_node(found.text)
        outputs = found.path, found.start, found.round_trip, found.text, sampler
        return io.NodeOutput(*outputs, ui=ui.PreviewText(found.text))


class ELEditFriendlyInversion(io.ComfyNode):
    """Finds the noise of every step with which a model makes a given picture."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELEditFriendlyInversion",
            display_name="Edit-Friendly Inversion",
            category=CATEGORY,
            description="Finds the noise of each step with which ancestral sampling makes this very picture, and gives "
            "a SAMPLER with it. Another prompt in the SamplerCustom then edits the picture and keeps its structure. "
            "SD 1.x, SD 2.x and SDXL.",
            search_aliases=["inversion", "ddpm", "edit friendly", "noise maps", "real picture", "sampler"],
            inputs=[
                *_picture_inputs(),
                seed_input("Seed of the noise; another one gives another edit."),
                *_schedule_inputs(100, 3.5, "Published: 100."),
                io.Float.Input(
                    "skip",
                    default=0.36,
                    min=0.0,
                    max=0.99,
                    step=0.01,
                    tooltip="The share of the steps that is left out at the noisy end (published: 0.36). More keeps "
                    "more of the picture, less follows the new prompt more.",
                ),
                *_last_inputs(),
            ],
            outputs=[
                io.Sampler.Output(
                    display_name="sampler",
                    tooltip="For SamplerCustom or SamplerCustomAdvanced with these sigmas: ancestral Euler with the "
                    "noise found. It begins with the inverted state, whatever add_noise and seed say.",
                ),
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="The noise levels behind skip; any others are refused."
                ),
                *_outputs(),
                io.String.Output(display_name="report", tooltip="Schedule and round trip."),
            ],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        positive: Any,
        negative: Any,
        latent: dict,
        seed: int,
        steps: int,
        scheduler: str,
        cfg: float,
        skip: float,
        sigmas: Any = None,
        vae: Any = None,
    ) -> io.NodeOutput:
        """Invert, and show the report on the node."""
        levels = schedule(model, steps, scheduler, 1.0, sigmas)
        found, sampler = invert_edit_friendly(Guided(model, positive, negative, cfg), latent, levels, skip, seed, vae)
        show_on_running_node(found.text)
        kept = levels[-len(found.path.levels) :]
        return io.NodeOutput(sampler, kept, found.path, found.start, found.text, ui=ui.PreviewText(found.text))


NODES = [ELInvertPicture, ELEditFriendlyInversion]
