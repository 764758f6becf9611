"""Where the prompts of two subjects on the same scene disagree (DiffEdit's map), as masks of the one that is there."""

from __future__ import annotations

from collections import defaultdict

from explainable_latents.nodes.core.maps.masks import Shaping, shape_mask
from explainable_latents.nodes.host.editing.prompt_difference import difference_map

from ....tools.toy_world.pictures import SUBJECT_NAMES
from ..tables import Row, mean_rows
from ..world import IOU, TIMESTEPS, World, column, level

# The published rule and number of noises come first.
RULES = {"mean × factor 1.5": Shaping("mean × factor", 1.5), "otsu": Shaping("otsu")}
NOISES = 10


def rows(world: World) -> list[Row]:
    """IoU for each rule; the other subject is the next one of the world's."""
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for example in world.each("prompt differences"):
        other = SUBJECT_NAMES[(SUBJECT_NAMES.index(example.subject) + 1) % len(SUBJECT_NAMES)]
        texts = example.prompt, f"{other} on {example.picture.kind.scene}"
        source, target = (world.toy.encode(text) for text in texts)
        for timestep in TIMESTEPS:
            asked = world.latents[example.seed], level(timestep), NOISES, example.seed
            saliency = difference_map(world.toy.model, source, target, *asked)
            for name, shaping in RULES.items():
                mask = shape_mask(saliency.maps, shaping, saliency.labels)[0].bool()
                found[f"Prompt Difference, {name}"][column(timestep)].append(example.iou(mask))
    return mean_rows(IOU, found)
