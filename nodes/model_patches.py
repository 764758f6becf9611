"""Masked Latent (model patch), Masked Latent Report: masked-latent sampling for every sampler node."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.methods.masked_latent import Policy
from .host.handles import fingerprint, tracked
from .host.sampling.ksampler import steps_problem
from .host.sampling.masked_latent import MaskedLatent
from .host.ui.running_node import show_on_running_node
from .inputs import plan_inputs, trajectory_input
from .sockets import CATEGORY, Report, report_outputs


class ELMaskedLatentModel(io.ComfyNode):
    """Makes every sampler that runs the model replace part of its latent at chosen steps."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskedLatentModel",
            display_name="Masked Latent (model patch)",
            category=CATEGORY,
            description="For any sampler node: at a few steps the sampler finds a mask and overwrites the latent "
            "outside (or inside) it with the noised reference. Works together with other patches, and can be applied "
            "twice.",
            search_aliases=["masked latent", "latent replacement", "aggregated attention", "keep background", "patch"],
            inputs=[
                io.Model.Input("model", tooltip="The model to sample with. It is copied, not changed."),
                io.Latent.Input(
                    "reference",
                    tooltip="The encoded reference picture, of the same size as the sampled latent. One is enough for "
                    "a whole batch.",
                ),
                *plan_inputs(),
                trajectory_input(),
            ],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="For KSampler, KSampler (Advanced), SamplerCustom or a guider, with any sampler except "
                    "dpm_fast and dpm_adaptive.",
                ),
                Report.Output(
                    display_name="report",
                    tooltip="What happened at each manipulated step; read it with Masked Latent Report.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> str:
        """A new value when the node's output has left ComfyUI's cache, so that the sampler runs again."""
        return fingerprint()

    @classmethod
    def validate_inputs(cls, manipulate_at: str | None = None) -> bool | str:
        """Refuse what is not a step before anything is loaded; only the sampler knows how many steps there are."""
        return steps_problem(manipulate_at) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        reference: dict,
        masking: Any,
        manipulate_at: str,
        inside: str,
        outside: str,
        inside_timestep: int,
        outside_timestep: int,
        trajectory: Any = None,
    ) -> io.NodeOutput:
        """Install the plan on a clone of the model."""
        patched = model.clone()
        policies = Policy(inside, inside_timestep), Policy(outside, outside_timestep)
        report = MaskedLatent(masking, reference["samples"], manipulate_at, *policies, trajectory).install(patched)
        return io.NodeOutput(patched, tracked(report))


class ELMaskedLatentReport(io.ComfyNode):
    """Reads what happened at the manipulated steps, after the sampler has run."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELMaskedLatentReport",
            display_name="Masked Latent Report",
            category=CATEGORY,
            description="The masks, maps and noise levels of the steps at which Masked Latent (model patch) replaced "
            "part of the latent, or Keep Words moved it, after the sampler has run.",
            search_aliases=["masks of the steps", "masked latent", "attention mask", "log"],
            inputs=[
                Report.Input("report", tooltip="From Masked Latent (model patch), or from Keep Words."),
                io.Latent.Input(
                    "samples",
                    tooltip="The latent that the sampler made with that model. It makes this node wait for the "
                    "sampler, and shows which sampler is meant if several used that model.",
                ),
            ],
            outputs=[
                *report_outputs(),
                io.String.Output(
                    display_name="text",
                    tooltip="For each manipulated step: its number, its noise level (sigma), and "
                    "how much of the latent is inside the mask; or the loss of each word and the change.",
                ),
            ],
        )

    @classmethod
    def execute(cls, report: Any, samples: dict) -> io.NodeOutput:
        """Read the run that made this latent."""
        masks, saliency, text = report.outputs(samples["samples"])
        show_on_running_node(text)
        return io.NodeOutput(masks, saliency, text, ui=ui.PreviewText(text))


NODES = [ELMaskedLatentModel, ELMaskedLatentReport]
