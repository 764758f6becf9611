"""Teaches regions by a few pictures with masks, and finds them in others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_management import get_torch_device, intermediate_device
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.taught_regions import pixel_features, predict, sampled_pixels
from ..autograd.training import trained
from ..families.family import family_of, network_of
from ..families.offers import BLOCKS
from ..ui.running_node import progress_bar, show_on_running_node
from .classifier import Classifier, Recipe, conditioning, file_of
from .picture_features import Encoded, FeatureReader, chosen_blocks, encode

REST = "rest"


def taught(
    model: ModelPatcher,
    vae: Any,
    positive: list,
    pictures: Tensor,
    masks: dict[str, Tensor],
    blocks: str,
    levels: str,
    pixels: int,
    seed: int,
    save_as: str = "",
) -> Classifier:
    """A classifier of every pixel into the masks' names, or `rest`, taught by pictures IMAGE [B,H,W,C].

    masks: name -> MASK [B,h,w]; pixels that several masks cover are not used. blocks, levels: separated by commas.
    pixels: how many of each picture are sampled at most. seed: of noise, sampling and training. save_as: see
    `Classifier.save`; empty: it is not saved. Raises ValueError for a conditioning that is more than one prompt, for
    masks that do not fit and for what `FeatureReader` and `trained` refuse.
    """
    if save_as:
        file_of(save_as)
    ((context, more),) = _one_prompt(positive)
    pooled = more.get("pooled_output")
    recipe = Recipe(
        (REST, *masks), family_of(model, BLOCKS).name, chosen_blocks(model, blocks), _levels(levels), 1, seed
    )
    reader = FeatureReader(
        model, conditioning(context, pooled), recipe.blocks, recipe.noise_levels, recipe.noises, seed
    )
    encoded = encode(vae, pictures)
    labels = _labels(masks, pictures, encoded)
    report, generator = progress_bar(), torch.Generator().manual_seed(seed)
    samples, targets = [], []
    for found, own in zip(reader.read(encoded.latents, lambda done, of: report(done, 2 * of)), labels, strict=True):
        points, target = sampled_pixels(own, pixels, len(recipe.names), generator)
        samples.append(pixel_features(_in_order(found, recipe), points, encoded.size))
        targets.append(target)
    whole, target = torch.cat(samples), torch.cat(targets)
    missing = [name for i, name in enumerate(recipe.names) if i and not (target == i).any()]
    if missing:
        raise ValueError(f"no pixel of the pictures is {', '.join(missing)} alone: each mask has to mark some")
    perceptrons = trained(whole, target, len(recipe.names), seed, lambda done, of: report(of + done, 2 * of))
    counts = ", ".join(f"{name} {int((target == i).sum())}" for i, name in enumerate(recipe.names))
    made = Classifier(recipe, perceptrons, context.cpu(), None if pooled is None else pooled.cpu(), _mark(model))
    saved = f"; saved as {made.save(save_as)}" if save_as else ""
    features = f"{whole.shape[1]} features of {', '.join(recipe.blocks)}"
    show_on_running_node(f"{len(target)} pixels: {counts}; {features}{saved}")
    return made


def named_masks(names: str, masks: Sequence[Tensor | None]) -> dict[str, Tensor]:
    """The masks by their names, which are separated by commas.

    Raises ValueError unless every mask that is there has a name of its own and none is `rest`.
    """
    words = [word.strip() for word in names.split(",") if word.strip()]
    there = [mask for mask in masks if mask is not None]
    if len(words) != len(there) or len(set(words)) < len(words) or REST in words:
        raise ValueError(
            f"names {names!r} for {len(there)} masks: give each mask one name of its own, separated by commas; "
            f"{REST!r} is what no mask covers"
        )
    return dict(zip(words, there, strict=True))


def found_regions(
    model: ModelPatcher, vae: Any, pictures: Tensor, classifier: Classifier
) -> tuple[Tensor, Tensor, str]:
    """The taught regions of pictures IMAGE [B,H,W,C].

    Returns MASK [S·B,H,W] of 0 and 1, all pictures of the first name before those of the second; how uncertain every
    pixel is, MASK [B,H,W] in 0..1; and the S names, separated by commas, `rest` not among them. Raises ValueError as
    `Classifier.reader`.
    """
    encoded, names = encode(vae, pictures), classifier.recipe.names
    report, device = progress_bar(), get_torch_device()
    perceptrons = classifier.perceptrons.to(device)
    winners, unsure = [], []
    for found in classifier.reader(model).read(encoded.latents, report):
        features = [each.to(device) for each in _in_order(found, classifier.recipe)]
        winner, _, disagreement = predict(perceptrons, features, encoded.size)
        winners.append(encoded.whole(winner.cpu().float()))
        unsure.append(encoded.whole(disagreement.cpu()))
    labels = torch.stack(winners)
    masks = torch.cat([(labels == i).float() for i in range(1, len(names))])
    return masks.to(intermediate_device()), torch.stack(unsure).to(intermediate_device()), ", ".join(names[1:])


def _one_prompt(positive: list) -> list:
    """The only entry of a CONDITIONING. Raises ValueError unless there is one, with a prompt and nothing else."""
    beside = sorted({key for _, more in positive for key in more} - {"pooled_output"})
    if len(positive) != 1 or beside:
        what = f"{len(positive)} conditionings" if len(positive) != 1 else f"{', '.join(beside)}"
        raise ValueError(
            f"the prompt is saved with what is taught, and this one has {what}: connect CLIP Text Encode directly"
        )
    return positive


def _levels(text: str) -> tuple[float, ...]:
    """Noise levels separated by commas; their range is checked where they are used. Raises ValueError otherwise."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise ValueError(f"noise_levels {text!r} are not numbers separated by commas, like 0.05, 0.15, 0.25") from error


def _labels(masks: dict[str, Tensor], pictures: Tensor, encoded: Encoded) -> list[Tensor]:
    """The class of every pixel that the encoder sees, int64 [h,w] for each picture; -1 where masks overlap."""
    planes = []
    for name, mask in masks.items():
        if len(mask) != len(pictures):
            raise ValueError(
                f"{len(mask)} masks of {name} for {len(pictures)} pictures: give one mask for each picture"
            )
        fitted = F.interpolate(mask.cpu().float()[:, None], size=pictures.shape[1:3], mode="bilinear")[:, 0]
        planes.append(encoded.seen(fitted) > 0.5)
    inside = torch.stack(planes)
    numbers = torch.arange(1, len(planes) + 1).view(-1, 1, 1, 1)
    labels = torch.where(inside.sum(0) > 1, -1, (inside * numbers).sum(0))
    return list(labels)


def _in_order(found: list[dict[str, Tensor]], recipe: Recipe) -> Sequence[Tensor]:
    """Level by level, block by block."""
    return [each[block] for each in found for block in recipe.blocks]


def _mark(model: ModelPatcher) -> Tensor:
    return family_of(model, BLOCKS).mark(network_of(model))
