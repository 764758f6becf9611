"""Prompts of regions: which text of a CONDITIONING is for which part of the picture."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.masking import GradientMasking, ImageMasking, Masking
from ...core.methods.regional_attention import coverage, divided
from ..sampling.mask_sources import mask_source

# What a CONDITIONING may hold beside its text, and only a prompt of the whole model call can have.
_OF_WHOLE_CALLS = {
    "control": "a ControlNet",
    "gligen": "a GLIGEN",
    "hooks": "a LoRA or hooks of its own",
    "clip_start_percent": "a schedule of its CLIP",
}
_HOW_TO_PLACE = (
    "give it a mask by Conditioning (Set Mask), or an area by Conditioning (Set Area), write ratios for all that have "
    "neither, or connect a masking"
)


class Place(Protocol):
    """Tells where a region is while a model samples."""

    def known(self, x: Tensor) -> Tensor | None:
        """The mask [1 or B,h,w] for the sampler's state `x` [B,C,h,w]; None while it is not known."""


@dataclass(frozen=True)
class Rectangle:
    """A place: height, width, top and left edge, as shares of the latent, or in places of the latent."""

    area: tuple[float, float, float, float]
    in_places: bool = False

    def known(self, x: Tensor) -> Tensor:
        """See `Place`."""
        h, w = x.shape[-2:]
        sides = (h, w, h, w) if self.in_places else (1, 1, 1, 1)
        area = tuple(number / side for number, side in zip(self.area, sides, strict=True))
        return coverage(area, (h, w)).unsqueeze(0)


@dataclass(frozen=True)
class Region:
    """A prompt for a part of the picture.

    text: context [1 or B,T,d]. place: where it is; strength: how much it counts there. start, end: the part of the
    noise schedule in which it is there, 0 at pure noise.
    """

    text: Tensor
    place: Place
    strength: float
    start: float
    end: float


def read_regions(conditioning: list, ratios: str, masking: Masking | None, patcher: ModelPatcher) -> list[Region]:
    """The regions of a CONDITIONING that have any effect; what live masks read is captured on `patcher`.

    ratios: see `divided`, for the entries that have neither mask nor area, in their order. masking: finds the mask of
    the one entry that has neither. Raises ValueError where an entry has no place or two, where there is no text, where
    something acts on it that only whole prompts can have, and as `divided`.
    """
    if isinstance(masking, GradientMasking):
        raise ValueError(
            "Regional Attention needs its mask at every step, and Mask from Abs-Grad-SAM would take a model call with "
            "gradients for each: connect Mask from Attention or Mask from Image"
        )
    if ratios.strip() and masking is not None:
        raise ValueError(
            f"both masking and the ratios {ratios!r} say where the prompts without mask or area are: clear ratios, or "
            "disconnect masking"
        )
    cells = [Rectangle(area) for area in divided(ratios)] if ratios.strip() else []
    unplaced = [i for i, (_, options) in enumerate(conditioning) if "mask" not in options and "area" not in options]
    if cells and len(cells) != len(unplaced):
        raise ValueError(
            f"ratios {ratios!r} divide the picture into {len(cells)} parts, but {len(unplaced)} of the "
            f"{len(conditioning)} region prompts have neither mask nor area: write as many parts, and combine the "
            "prompts in the order of the parts, row by row"
        )
    if masking is not None and len(unplaced) != 1:
        raise ValueError(
            f"masking says where one prompt is, but {len(unplaced)} of the {len(conditioning)} region prompts have "
            "neither mask nor area: leave one without, and put a second Regional Attention behind this one for another"
        )
    if unplaced and not cells and masking is None:
        raise ValueError(f"region prompt {unplaced[0] + 1} of {len(conditioning)} has no place: {_HOW_TO_PLACE}")
    found = []
    for i, (text, options) in enumerate(conditioning):
        _check(i + 1, text, options)
        if i in unplaced:
            place = mask_source(masking, patcher) if masking is not None else cells[unplaced.index(i)]
        else:
            place = _own_place(options, patcher)
        strength = float(options.get("strength", 1.0)) * float(options.get("mask_strength", 1.0))
        empty = "mask" in options and not bool(options["mask"].any())
        if strength != 0 and not empty:
            span = float(options.get("start_percent", 0.0)), float(options.get("end_percent", 1.0))
            found.append(Region(text, place, strength, *span))
    return found


def _check(number: int, text: Tensor | None, options: dict[str, Any]) -> None:
    if text is None:
        raise ValueError(f"region prompt {number} holds no text: connect the output of CLIP Text Encode")
    for key in ("strength", "mask_strength"):
        if float(options.get(key, 1.0)) < 0:
            raise ValueError(f"region prompt {number} has the strength {options[key]}: give 0 (off) or more")
    for key, what in _OF_WHOLE_CALLS.items():
        if options.get(key) is not None:
            raise ValueError(
                f"region prompt {number} has {what}, which would act on the whole picture: put it on the sampler's "
                "positive prompt instead"
            )


def _own_place(options: dict[str, Any], patcher: ModelPatcher) -> Place:
    """Of an entry with a mask or an area; of both, the mask inside the area."""
    places: list[Place] = []
    if "mask" in options:
        mask = options["mask"]
        mask = mask.reshape(-1, *mask.shape[-2:]).float()
        places.append(mask_source(ImageMasking(mask), patcher))
    if "area" in options:
        relative = options["area"][0] == "percentage"
        area = options["area"][1:] if relative else options["area"]
        places.append(Rectangle(tuple(map(float, area)), in_places=not relative))
    return places[0] if len(places) == 1 else _Both(*places)


@dataclass(frozen=True)
class _Both:
    """Where two places overlap."""

    first: Place
    second: Place

    def known(self, x: Tensor) -> Tensor:
        """See `Place`."""
        mask = self.first.known(x)
        return mask * self.second.known(x).to(mask)
