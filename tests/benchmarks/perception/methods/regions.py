"""DiffSeg: regions by self-attention alone, and the words that name them."""

from __future__ import annotations

from collections import defaultdict

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.core.words.subjects import Subjects
from explainable_latents.nodes.host.regions import Segmenting, segment_pictures
from explainable_latents.nodes.host.tokens import tokenize

from ..tables import Row, mean_rows
from ..world import IOU, TIMESTEPS, Example, World, column, level

# The toy's 256 places differ less from each other than the 4096 of SD 1.5 do, so its thresholds are lower. 4 of its 16
# places on a side are as far apart as 16 of 64.
CUTS = {
    "threshold 0.1, 4 anchors": {"threshold": 0.1, "anchors": 4},
    "threshold 0.2": {"threshold": 0.2},
    "threshold 0.2, k-means": {"threshold": 0.2, "k_means": True},
    "threshold 0.2, noise added": {"threshold": 0.2, "add_noise": True},
}
# Those that are also measured with the picture's own prompt, whose words name the regions.
NAMED = ("threshold 0.1, 4 anchors", "threshold 0.2")


def rows(world: World) -> list[Row]:
    """IoU of the region that fits the subject best, and, given the prompt, of all that have the subject's name.

    As published, the model sees the picture without noise and an empty prompt unless something else is said. Also how
    many regions a picture has, and how often the best one has the subject's name.
    """
    ious, counts, rights = (defaultdict(lambda: defaultdict(list)) for _ in range(3))
    empty = world.toy.encode("")
    for example in world.each("regions"):
        latent, described, words = world.latents[example.seed], world.toy.encode(example.prompt), _words(world, example)
        for timestep in TIMESTEPS:
            at = column(timestep)
            for name, options in CUTS.items():
                how = Segmenting(level(timestep), seed=example.seed, **options)
                (found,) = segment_pictures(world.toy.model, empty, latent, how)
                ious[f"DiffSeg's best region, {name}"][at].append(max(map(example.iou, found.masks().bool())))
                counts[name][at].append(len(found.areas))
                if name in NAMED:
                    (found,) = segment_pictures(world.toy.model, described, latent, how, words)
                    masks = found.masks().bool()
                    right = [word == example.subject for word in found.names]
                    ious[f"DiffSeg's regions with the subject's name, {name}"][at].append(
                        example.iou(masks[right].any(0))
                    )
                    best = max(range(len(masks)), key=lambda i, masks=masks: example.iou(masks[i]))
                    rights[name][at].append(float(right[best]))
    tables = {
        IOU: ious,
        "regions of a picture by DiffSeg": counts,
        "DiffSeg's best region has the subject's name": rights,
    }
    return [row for table, found in tables.items() for row in mean_rows(table, found)]


def _words(world: World, example: Example) -> Subjects:
    """The picture's subject and scene, as words of its prompt."""
    named = f"{example.subject}, scene: {example.picture.kind.scene}"
    return parse(example.prompt, tokenize(world.toy.clip, example.prompt), named)
