"""Regions of pictures by the model's self-attention, and the words that they show: one model call for each picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from comfy.model_management import intermediate_device
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..core.gradients.definition import Progress
from ..core.maps.regions import Regions, named, regions_of
from ..core.methods.diffseg import segment
from ..core.words.subjects import Subjects
from .attention.observer import AttentionCapture, observe
from .attention.place_reader import PlaceProbe
from .one_call import call_once, without_ours
from .ui.running_node import progress_bar, show_on_running_node

# What the bar counts for one picture: half of it is the model call, half what follows.
_PARTS = 1000


@dataclass(frozen=True)
class Segmenting:
    """How pictures are cut into regions.

    noise_level: what the network is told, from 0 (clean) to 1. add_noise: whether that noise is also added, with
    `seed`. threshold, anchors, k_means: see `core.methods.diffseg.segment`.
    """

    noise_level: float = 0.3
    threshold: float = 0.9
    anchors: int = 16
    k_means: bool = False
    add_noise: bool = False
    seed: int = 0


def segment_pictures(
    model: ModelPatcher,
    positive: list,
    latent: dict,
    how: Segmenting,
    subjects: Subjects | None = None,
    region: list | None = None,
) -> list[Regions]:
    """The regions of each picture of a LATENT, in its own pixels, on the device of the host's outputs.

    Every picture has a model call of its own, on the positive conditioning, so that memory does not grow with their
    number and each has the regions that it has alone. Noise is added as the host's samplers do: to the picture with
    number i of a batch the i-th noise of the seed. subjects: the words that the regions are named by, of
    the positive prompt, or of `region`'s where another node gives that to a part of the picture. LoRA, ControlNet and
    attention patches act in the call, guidance and this pack's other patches do not. Raises ValueError as `observe`,
    `noise_sigma`, `PlaceProbe` and `segment` do, for a conditioning that has something of its own for each picture of a
    batch, and the host's exception when the user cancels.
    """
    samples = latent["samples"]
    if len(samples) > 1 and (what := _of_each_picture(positive)):
        raise ValueError(
            f"the conditioning has {what} of its own for each picture of the batch, but pictures are cut into regions "
            "one at a time: connect them one by one, each with its own conditioning, or one conditioning for all"
        )
    patcher = without_ours(model)
    capture = None if subjects is None else observe(patcher, subjects, positive=region)
    probe = PlaceProbe(patcher)
    scale = patcher.get_model_object("latent_format").spacial_downscale_ratio
    numbers = latent.get("batch_index") or range(len(samples))
    bar, found = progress_bar(), []
    for i, number in enumerate(numbers):
        one = {**latent, "samples": samples[i : i + 1], "batch_index": [number]}

        def call(one: dict = one) -> None:
            call_once(patcher, positive, one, how.noise_level, how.seed, clean=not how.add_noise)

        parts = [_part(bar, 2 * i + half, 2 * len(samples)) for half in (0, 1)]
        size = tuple(side * scale for side in samples.shape[-2:])
        found.append(_segment_one(probe, call, size, scale, how, capture, parts))
    return found


def _of_each_picture(conditioning: list) -> str:
    """What in a conditioning is a batch; empty if nothing is."""
    for context, options in conditioning:
        if len(context) > 1:
            return "a text"
        control = options.get("control")
        while control is not None:
            if control.cond_hint_original is not None and len(control.cond_hint_original) > 1:
                return "a ControlNet picture"
            control = control.previous_controlnet
    return ""


def _segment_one(
    probe: PlaceProbe,
    call: Callable[[], None],
    size: tuple[int, int],
    scale: int,
    how: Segmenting,
    capture: AttentionCapture | None,
    parts: list[Progress],
) -> Regions:
    """The regions of the picture of this `size` in pixels, `scale` to one of the latent, that `call` shows."""
    attention, grid = probe.look(call, parts[0])
    covered = probe.covered and tuple(side * scale for side in probe.covered)
    labels = segment(attention, grid, size, how.threshold, how.anchors, how.k_means, parts[1], covered)
    regions = regions_of(labels.to(intermediate_device()))
    if capture is None:
        return regions
    saliency = capture.latest()
    if saliency is None:
        raise capture.nothing_seen(f"at noise level {how.noise_level}", "another node hides it")
    return named(regions, saliency.maps[:, 0].to(regions.labels.device), saliency.labels)


def _part(bar: Progress, index: int, count: int) -> Progress:
    """Progress of one of `count` equal parts of the bar."""

    def report(done: int, total: int) -> None:
        bar(round(_PARTS * (index + done / total)), _PARTS * count)

    return report


def outputs(pictures: list[Regions]) -> tuple[Tensor, Tensor, str]:
    """The label maps IMAGE [B,H,W,3], the masks MASK [R,H,W] of one picture after the other, and a line for each mask.

    A line begins with the number of the mask, counted from 0, and says which picture it belongs to if there are more.
    """
    lines = []
    for i, regions in enumerate(pictures, 1):
        for line in regions.lines():
            of = f" (picture {i})" if len(pictures) > 1 else ""
            lines.append(f"mask {len(lines)}{of}: {line}")
    images = torch.stack([regions.picture() for regions in pictures])
    return images, torch.cat([regions.masks() for regions in pictures]), "\n".join(lines)


def show(pictures: list[Regions], text: str) -> None:
    """Show the lines of `outputs` on the running node, and what to do about pictures that were not cut."""
    whole = sum(len(regions.areas) == 1 for regions in pictures)
    if whole:
        what = "The picture is" if len(pictures) == 1 else f"{whole} of {len(pictures)} pictures are"
        text += f"\n{what} one region: the attention of all places is alike at this threshold; lower it."
    show_on_running_node(text)
