"""Attention of the toy transformer to the subject's word, block by block, as masks: plain, refined and output space."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from torch import Tensor

from explainable_latents.nodes.core.attention.aggregate import aggregate
from explainable_latents.nodes.core.attention.probabilities import ALL_TEXT, ALL_TOKENS
from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.families.family import family_of, network_of
from explainable_latents.nodes.host.one_call import call_once, probe

from ....tools.comfyui.paths import TOY_TRANSFORMER
from ..tables import Row, mean_rows
from ..world import TIMESTEPS, Example, World, column

TABLE = "IoU with the subject's mask, toy transformer"
RULES = ("mean", "otsu")
# How blocks are read in one call for all of them; the first is what nodes do unless the user chooses.
READINGS = {
    "share of all text": {"share": ALL_TEXT},
    "share of all tokens": {"share": ALL_TOKENS},
    "output space": {"space": "output"},
}


def rows(world: World) -> list[Row]:
    """IoU of every block alone, of all blocks and of the usual ones, for each reading and threshold rule."""
    transformer, found = World(len(world.examples), TOY_TRANSFORMER), defaultdict(lambda: defaultdict(list))
    for example in transformer.each("transformer's maps"):
        for timestep in TIMESTEPS:
            for name, maps in _maps(transformer, example, timestep).items():
                for rule in RULES:
                    mask = shape_mask(maps, Shaping(rule), (example.subject,))[0].bool()
                    found[f"{name}, {rule}"][column(timestep)].append(example.iou(mask))
    return mean_rows(TABLE, found)


def _maps(world: World, example: Example, timestep: int) -> dict[str, Tensor]:
    """The map [1,1,16,16] of the subject's word for every choice of blocks and every reading."""
    asked = world.asked(example, timestep)
    family, network = family_of(world.toy.model), network_of(world.toy.model)
    each = family.site_names(network, family.text_kind)
    chosen = {**{name: (name,) for name in each}, "all": each, "usual": family.usual_layers(network)}
    found = {}
    for reading, how in READINGS.items():
        blocks = _blocks(*asked, **how)
        for name, layers in chosen.items():
            found[f"{name}, {reading}"] = aggregate([blocks[layer] for layer in layers], (16, 16))
    for name, layers in chosen.items():
        found[f"{name}, share of all text, refine 1"] = probe(*asked, layers=", ".join(layers), refine=1).maps
    return found


def _blocks(
    model: Any, positive: list, latent: dict, subjects: Any, noise_level: float, seed: int, **how: Any
) -> dict[str, Tensor]:
    """What each block's attention gives in one call, by name: see `probe` and `observe`."""
    patched = model.clone()
    capture = observe(patched, subjects, layers="all", **how)
    call_once(patched, positive, latent, noise_level, seed)
    return {name: maps for (name, _), maps in capture.runs.latest().layers.items()}
