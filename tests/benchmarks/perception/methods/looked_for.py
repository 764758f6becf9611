"""Words that are not in the prompt: the scene alone is the prompt, and every subject of the world is looked for."""

from __future__ import annotations

from collections import defaultdict

from explainable_latents.nodes.core.attention.looked_for import READINGS
from explainable_latents.nodes.core.maps.masks import Shaping, mask_per_map
from explainable_latents.nodes.host.one_call import probe

from ....tools.toy_world.pictures import SUBJECT_NAMES
from ..tables import Row, auc, bootstrap, mean_rows
from ..world import IOU, TIMESTEPS, World, column, level

RULES = ("mean", "otsu")
POWERS = (0, 1)

_WAYS = {
    f"word not in the prompt, {reading}" + (f", refine {power}" if power else ""): {"reading": reading, "refine": power}
    for reading in READINGS
    for power in POWERS
}

PRESENCE = "AUC of 'is the word in the picture', by the peak of its map"


def rows(world: World) -> list[Row]:
    """IoU with the picture's subject, for its word and for those of the six others; and whether maps tell which it is.

    A map's peak is its largest value in multiples of its mean, as the heat maps show it.
    """
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    peaks: dict[str, dict[str, tuple[list[float], list[float]]]] = defaultdict(lambda: defaultdict(lambda: ([], [])))
    for example in world.each("looked-for words"):
        scene = example.picture.kind.scene
        asked = world.toy.model, world.toy.encode(scene), world.latents[example.seed], world.subjects(scene, scene)
        for timestep in TIMESTEPS:
            for name, how in _WAYS.items():
                looked = {"clip": world.toy.clip, "look_for": ", ".join(SUBJECT_NAMES), **how}
                saliency = probe(*asked, level(timestep), example.seed, **looked)
                for rule in RULES:
                    masks = mask_per_map(saliency.maps, Shaping(rule), saliency.labels).bool()[:, 0]
                    each = {word: example.iou(mask) for word, mask in zip(saliency.labels, masks, strict=True)}
                    found[f"{name}, {rule}"][column(timestep)].append(each[example.subject])
                    others = [each[word] for word in SUBJECT_NAMES if word != example.subject]
                    beside = found[f"{name}, {rule}: the six other subjects' words"]
                    beside[column(timestep)].append(sum(others) / len(others))
                present, absent = peaks[name][column(timestep)]
                for word, maps in zip(saliency.labels, saliency.maps, strict=True):
                    peak = float(maps.amax() / maps.mean())
                    if word in SUBJECT_NAMES:
                        (present if word == example.subject else absent).append(peak)
    cells = {name: {key: bootstrap(auc, *groups) for key, groups in each.items()} for name, each in peaks.items()}
    return [*mean_rows(IOU, found), *(Row(PRESENCE, name, each) for name, each in cells.items())]
