"""Teach Regions: what 1, 5 and 20 pictures with masks teach, beside the same perceptrons on colours alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.taught_regions import Perceptrons, pixel_features, predict, sampled_pixels
from explainable_latents.nodes.host.autograd.training import trained
from explainable_latents.nodes.host.features.picture_features import FeatureReader, chosen_blocks

from ....tools.toy_world.pictures import random_picture
from ....tools.toy_world.quality import HELD_OUT
from ..tables import Row, mean_rows
from ..world import World

TABLE = "IoU of taught subjects"
TAUGHT_BY = (1, 5, 20)
TEACHERS = HELD_OUT + 500_000  # seeds of the pictures that teach: none of them is among those that are asked
SETS = 2  # of teaching pictures
LEVELS, PIXELS = (0.05, 0.15, 0.25), 1000  # the nodes' defaults
SIZE = (128, 128)


def rows(world: World) -> list[Row]:
    """IoU with the subject's mask by how many pictures taught; the mean over several sets of these."""
    toy, found = world.toy, defaultdict(lambda: defaultdict(list))
    reader = FeatureReader(toy.model, toy.encode(""), chosen_blocks(toy.model, "auto"), LEVELS, 1, 0)

    def features(image: Tensor) -> list[Tensor]:
        (levels,) = reader.read(toy.vae.encode(image), lambda *_: None)
        return [each for blocks in levels for each in blocks.values()]

    def colours(image: Tensor) -> list[Tensor]:
        return [image[0].movedim(-1, 0)]

    ways = {"the model's features": features, "colours alone": colours}
    taught: dict[tuple[str, int], list[Perceptrons]] = defaultdict(list)
    for number in range(SETS):
        teachers = [random_picture(TEACHERS + 100 * number + i) for i in range(max(TAUGHT_BY))]
        images = [torch.from_numpy(each.image.copy()).float()[None] / 255 for each in teachers]
        masks = [torch.from_numpy(each.mask).long() for each in teachers]
        for way, read in ways.items():
            whole = [read(each) for each in images]
            for count in TAUGHT_BY:
                taught[way, count].append(learnt(whole[:count], masks[:count]))
    for example in world.each("taught regions"):
        for way, read in ways.items():
            own = read(example.image)
            for count in TAUGHT_BY:
                ious = [example.iou(predict(each, own, SIZE)[0].bool()) for each in taught[way, count]]
                found[way][f"taught by {count}"].append(sum(ious) / SETS)
    return mean_rows(TABLE, found)


def learnt(features: Sequence[list[Tensor]], masks: Sequence[Tensor]) -> Perceptrons:
    """As Teach Regions does it, from features that have been read."""
    generator, samples, labels = torch.Generator().manual_seed(0), [], []
    for each, mask in zip(features, masks, strict=True):
        points, own = sampled_pixels(mask, PIXELS, 2, generator)
        samples.append(pixel_features(each, points, SIZE))
        labels.append(own)
    return trained(torch.cat(samples), torch.cat(labels), 2, 0, lambda *_: None)
