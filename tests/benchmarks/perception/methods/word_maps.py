"""Attention to the subject's word and its Abs-Grad-SAM, as they are and refined by self-attention, as masks."""

from __future__ import annotations

from collections import defaultdict

from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from explainable_latents.nodes.host.one_call import gradient_saliency, probe

from ..tables import Row, mean_rows
from ..world import IOU, TIMESTEPS, World, column

RULES = ("mean", "otsu")
POWERS = (1, 2, 4, 8)


def rows(world: World) -> list[Row]:
    """IoU for each map and threshold rule."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for example in world.each("word maps"):
        for timestep in TIMESTEPS:
            asked = world.asked(example, timestep)
            maps = {"attention": probe(*asked)}
            maps |= {f"attention, refine {power}": probe(*asked, refine=power) for power in POWERS}
            how = "absolute", "structured"
            maps["Abs-Grad-SAM"] = gradient_saliency(*asked, *how)
            maps["Abs-Grad-SAM, refine 1"] = gradient_saliency(*asked, *how, refine=1)
            for name, saliency in maps.items():
                values = saliency.maps if saliency.maps.ndim == 4 else saliency.maps.mean(2)
                for rule in RULES:
                    mask = shape_mask(values, Shaping(rule), saliency.labels)[0].bool()
                    found[f"{name}, {rule}"][column(timestep)].append(example.iou(mask))
    return mean_rows(IOU, found)
