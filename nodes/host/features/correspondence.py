"""Points and masks of one picture found in another."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from comfy.model_management import intermediate_device
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.choices import one_of
from ...core.maps.masks import Shaping, chosen_parts
from ...core.maps.parts import EVERY
from ...core.maps.points import coordinates_text, points_text, read_points, spread_points
from ...core.methods.correspondence import Matches, carry_mask, find_points
from ..ui.pair_sheet import pair_sheet
from ..ui.running_node import progress_bar, show_on_running_node
from .picture_features import Encoded, FeatureReader, chosen_block, encode

KEEP = ALL, MUTUAL = ("all points", "mutual")
EVERY_PART = Shaping()


@dataclass(frozen=True)
class Pictures:
    """Pictures A and B, IMAGE [n,H,W,C] each, and the VAE that encodes them.

    A is one picture, or one for each of B. Raises ValueError for any other number.
    """

    vae: Any
    a: Tensor
    b: Tensor

    def __post_init__(self) -> None:
        if len(self.a) not in (1, len(self.b)):
            raise ValueError(
                f"picture A is a batch of {len(self.a)} and picture B of {len(self.b)}: give one picture A, or one for "
                "each picture B"
            )


@dataclass(frozen=True)
class Pair:
    """One picture of A and one of B: their features [C,h,w], and where in the pictures these lie."""

    a: Tensor
    b: Tensor
    in_a: Encoded
    in_b: Encoded


def dift(model: ModelPatcher, positive: list, block: str, noise_level: float, noises: int, seed: int) -> FeatureReader:
    """Features of one block at one noise level. block: a name or `auto`, see `chosen_block`."""
    return FeatureReader(model, positive, (chosen_block(model, block),), (noise_level,), noises, seed)


def found_points(
    reader: FeatureReader, pictures: Pictures, text: str, mask: Tensor | None, count: int, keep: str
) -> tuple[list[str], list[str], Tensor]:
    """The points of A in every picture of B: two texts for each (see `core.maps.points`), and a sheet IMAGE for each.

    text: the points, or empty where `count` points of the mask [1 or n,H,W] are looked for. keep: `mutual` leaves out a
    point whose way back to A ends farther away than one place of the features is wide. Raises ValueError for points
    that cannot be read, unless either text or mask is given, and as `FeatureReader.read`.
    """
    one_of("keep", keep, KEEP)
    if bool(text.strip()) == (mask is not None):
        given = "neither is" if mask is None else "both are"
        raise ValueError(f"give either points or a mask: {given} given. Clear 'points' to look for points of the mask")
    if mask is None:
        asked = [read_points(text, tuple(pictures.a.shape[1:3]))]
    else:
        asked = [spread_points(each, count) for each in _fitted(mask, pictures.a)]
    points, coordinates, sheets, lines = [], [], [], []
    for i, pair in enumerate(_pairs(reader, pictures)):
        wanted = asked[i % len(asked)]
        matches = _in_picture(pair, wanted)
        width = max(side / cells for side, cells in zip(pair.in_a.size, pair.a.shape[1:], strict=True))
        kept = matches.back <= (width if keep == MUTUAL else math.inf)
        points.append(points_text(matches.points[kept], matches.similarity[kept]))
        coordinates.append(coordinates_text(matches.points[kept]))
        sheets.append(pair_sheet(pictures.a[i % len(pictures.a)], pictures.b[i], wanted, matches.points, kept))
        lines += _table(i if len(pictures.b) > 1 else None, wanted, matches, kept)
    show_on_running_node("\n".join(lines))
    return points, coordinates, torch.stack(sheets).to(intermediate_device())


def carried_mask(
    reader: FeatureReader,
    pictures: Pictures,
    mask: Tensor,
    neighbours: int,
    threshold: float,
    parts: Shaping = EVERY_PART,
) -> Tensor:
    """A's mask [1 or n,H,W] on every picture of B: MASK [n,H,W], 0 and 1, or between where `threshold` is 0.

    neighbours: see `carry_mask`. parts: see `chosen_parts`, in pixels of B. Raises ValueError as `carry_mask`,
    `chosen_parts` and `FeatureReader.read`, and for a choice of parts where there is no threshold.
    """
    if threshold <= 0 and (parts.parts != EVERY or parts.fill_holes):
        raise ValueError(
            f"threshold {threshold} gives shares, not a mask that has parts: set a threshold above 0, or parts to "
            f"'{EVERY}' and fill_holes off"
        )
    masks, carried = _fitted(mask, pictures.a), []
    for i, pair in enumerate(_pairs(reader, pictures)):
        seen = pair.in_a.seen(masks[i % len(masks)])
        cells = F.interpolate(seen[None, None], size=pair.a.shape[1:], mode="area")[0, 0]
        shares = carry_mask(pair.a, pair.b, cells, neighbours)
        enlarged = F.interpolate(shares[None, None], size=pair.in_b.size, mode="bilinear", align_corners=False)[0, 0]
        whole = pair.in_b.whole(enlarged)
        carried.append(chosen_parts(whole[None] > threshold, parts, 1)[0].float() if threshold > 0 else whole)
    return torch.stack(carried).to(intermediate_device())


def _pairs(reader: FeatureReader, pictures: Pictures) -> Iterator[Pair]:
    """Every picture of B with its picture of A."""
    in_a, in_b = (encode(pictures.vae, each) for each in (pictures.a, pictures.b))
    report, total = progress_bar(), len(pictures.a) + len(pictures.b)
    of_a = [_only(found) for found in reader.read(in_a.latents, lambda done, _: report(done, total))]
    of_b = reader.read(in_b.latents, lambda done, _: report(len(of_a) + done, total))
    for i, found in enumerate(of_b):
        yield Pair(of_a[i % len(of_a)], _only(found), in_a, in_b)


def _only(found: list[dict[str, Tensor]]) -> Tensor:
    """The features of the only block at the only noise level."""
    ((features,),) = (each.values() for each in found)
    return features


def _in_picture(pair: Pair, points: Tensor) -> Matches:
    """Find points [P,2], in pixels of picture A, in picture B; both may be larger than what their encoder sees."""
    corner_a, corner_b = (torch.tensor([each.left, each.top]) for each in (pair.in_a, pair.in_b))
    found = find_points(pair.a, pair.b, points - corner_a, pair.in_a.size, pair.in_b.size)
    return replace(found, points=found.points + corner_b)


def _fitted(mask: Tensor, pictures: Tensor) -> Tensor:
    """A MASK [N,H,W] of any resolution in that of the pictures. Raises ValueError unless it has 1 or as many masks."""
    if len(mask) not in (1, len(pictures)):
        raise ValueError(f"{len(mask)} masks for {len(pictures)} pictures A: give one mask, or one for each picture")
    return F.interpolate(mask.cpu().float()[:, None], size=pictures.shape[1:3], mode="bilinear")[:, 0]


def _table(picture: int | None, asked: Tensor, matches: Matches, kept: Tensor) -> list[str]:
    """A line for each point: where it was, where it is, how similar, and how far from itself the way back ends."""
    lines = [] if picture is None else [f"picture {picture + 1}"]
    rows = zip(asked.tolist(), matches.points.tolist(), matches.similarity, matches.back, kept, strict=True)
    for i, ((x, y), (u, v), similarity, back, keep) in enumerate(rows, 1):
        ending = f"similarity {similarity:.2f}, back within {back:.0f} px{'' if keep else ', left out'}"
        lines.append(f"{i}: ({x:.0f}, {y:.0f}) -> ({u:.0f}, {v:.0f}), {ending}")
    return lines
