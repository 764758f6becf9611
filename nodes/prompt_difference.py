"""Prompt Difference: where two prompts disagree about a picture (DiffEdit)."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io, ui

from .core.maps.colours import COLORMAPS
from .host.editing.prompt_difference import difference_map
from .host.ui.heat_maps import SCALES, HeatMaps
from .inputs import seed_input
from .sockets import CATEGORY, Saliency


class ELPromptDifference(io.ComfyNode):
    """Finds where a picture would have to change to fit another prompt."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        """Inputs, outputs and help of the node."""
        return io.Schema(
            node_id="ELPromptDifference",
            display_name="Prompt Difference",
            category=CATEGORY,
            description="Where would this picture have to change to fit another prompt? The picture is noised a few "
            "times, and the map shows how much the model's predictions for the old and the new prompt differ (the "
            "mask of DiffEdit). Works with every model.",
            search_aliases=["diffedit", "automatic mask", "difference", "edit mask", "saliency", "heat map"],
            inputs=[
                io.Model.Input("model", tooltip="The model, with its patches; every model works."),
                io.Conditioning.Input("source", tooltip="The prompt that describes the picture as it is."),
                io.Conditioning.Input("target", tooltip="The prompt of the picture that is wanted."),
                io.Latent.Input("latent", tooltip="The picture, from VAE Encode; a batch gives a map for each."),
                io.Float.Input(
                    "noise_level",
                    default=0.5,
                    min=0.01,
                    max=1.0,
                    step=0.01,
                    tooltip="How much noise is added, from none (0) to pure noise (1). Published: 0.5.",
                ),
                io.Int.Input(
                    "noises",
                    default=10,
                    min=1,
                    max=100,
                    tooltip="How many noises the map is the mean of (published: 10); each costs two model calls.",
                ),
                seed_input("Seed of these noises; they are the same for every picture of a batch."),
            ],
            outputs=[
                Saliency.Output(
                    display_name="saliency",
                    tooltip="One map per picture, larger where the prompts disagree more. Saliency to Mask with the "
                    "rule mean × factor and 1.5 gives the published mask.",
                ),
                io.Image.Output(display_name="preview", tooltip="The map as a heat map with its legend."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls, model: Any, source: Any, target: Any, latent: dict, noise_level: float, noises: int, seed: int
    ) -> io.NodeOutput:
        """Ask the model what both prompts make of the picture."""
        found = difference_map(model, source, target, latent, noise_level, noises, seed)
        page = HeatMaps(found, None, COLORMAPS[0], 1.0, SCALES[0]).sheet()
        return io.NodeOutput(found, page, ui=ui.PreviewImage(page, cls=cls))


NODES = [ELPromptDifference]
