"""Correspondence: which place of picture B is a place of picture A, by the features of a diffusion model.

DIFT: Tang, Jia, Wang, Phoo, Hariharan, *Emergent Correspondence from Image Diffusion*, NeurIPS 2023. A place's features
are compared by their cosine with those of every pixel of the other picture; the most similar pixel is the answer.
`carry_mask` is the pack's own use of it: each place of B votes with the places of A that are most like it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Numbers of similarity that are held at once: 64 MB.
AT_ONCE = 1 << 24

Size = tuple[int, int]


@dataclass(frozen=True)
class Matches:
    """Where points of picture A are in picture B.

    points: [P,2], (x, y) in pixels of B. similarity: [P], the cosine there, from -1 to 1. back: [P], how many pixels of
    A lie between a point and the place of A that is most like its match; near 0 where both pictures agree.
    """

    points: Tensor
    similarity: Tensor
    back: Tensor


def find_points(a: Tensor, b: Tensor, points: Tensor, size_a: Size, size_b: Size) -> Matches:
    """Find `points` [P,2] of picture A in picture B by features a [C,h,w] and b [C,h',w'] of their own grids.

    The features are those that bilinear interpolation gives at the points and at every pixel's centre. size_a, size_b:
    (height, width) of the pictures in pixels.
    """
    found, similarity = _most_similar(features_at(a, points, size_a), b, size_b)
    again, _ = _most_similar(features_at(b, found, size_b), a, size_a)
    return Matches(found, similarity, (again - points.to(again)).norm(dim=1))


def features_at(features: Tensor, points: Tensor, size: Size) -> Tensor:
    """Features [C,h,w] at points [P,2] of a picture of this (height, width), interpolated bilinearly: [P,C]."""
    height, width = size
    scale = torch.tensor([width, height], dtype=torch.float32, device=features.device)
    grid = 2 * points.to(scale) / scale - 1
    at = F.grid_sample(features[None].float(), grid[None, None], padding_mode="border", align_corners=False)
    return at[0, :, 0].T


def similarity_maps(queries: Tensor, features: Tensor, size: Size) -> Tensor:
    """The cosine of each query [P,C] with features [C,h,w] enlarged bilinearly to `size`: [P,H,W].

    The enlarged features themselves (3 GB for 1280 channels of 768 x 768 pixels) are never made: a product with them is
    the enlarged product, and their lengths follow from the products of neighbouring cells.
    """
    products = torch.einsum("pc,chw->phw", queries.float(), features.float())
    enlarged = F.interpolate(products[None], size=size, mode="bilinear", align_corners=False)[0]
    lengths = queries.float().norm(dim=1)[:, None, None] * _enlarged_norms(features.float(), size)
    return enlarged / lengths.clamp_min(torch.finfo(torch.float32).tiny)


def carry_mask(a: Tensor, b: Tensor, mask: Tensor, neighbours: int) -> Tensor:
    """For each cell of B the mean of A's mask over the `neighbours` cells of A that are most like it: [h',w'].

    a: [C,h,w]; mask: [h,w] in 0..1; b: [C,h',w']. Raises ValueError unless 1 <= neighbours <= cells of A.
    """
    cells = mask.numel()
    if not 1 <= neighbours <= cells:
        raise ValueError(f"neighbours {neighbours} is not from 1 to {cells}, the number of places that A has")
    of_a = F.normalize(a.float().flatten(1), dim=0)
    of_b = F.normalize(b.float().flatten(1), dim=0)
    values = mask.to(of_a).flatten()
    shares = []
    for some in of_b.split(max(1, AT_ONCE // cells), dim=1):
        best = (some.T @ of_a).topk(neighbours, dim=1).indices
        shares.append(values[best].mean(1))
    return torch.cat(shares).view(b.shape[1:])


def _most_similar(queries: Tensor, features: Tensor, size: Size) -> tuple[Tensor, Tensor]:
    """The pixel centre most like each query, [P,2], and its cosine, [P]."""
    points, values = [], []
    for some in queries.split(max(1, AT_ONCE // (size[0] * size[1]))):
        similarity, at = similarity_maps(some, features, size).flatten(1).max(1)
        points.append(torch.stack([at % size[1], at.div(size[1], rounding_mode="floor")], 1) + 0.5)
        values.append(similarity)
    return torch.cat(points), torch.cat(values)


def _enlarged_norms(features: Tensor, size: Size) -> Tensor:
    """The length of every feature vector after bilinear enlarging to `size`, [H,W]: float32.

    A pixel lies between four cells; the square of the sum of four vectors is a sum of ten products of two cells each,
    which all are maps on the features' own grid.
    """
    (top, bottom, down), (left, right, along) = (
        _between(length, cells, features.device) for length, cells in zip(size, features.shape[1:], strict=True)
    )
    down = down[:, None]
    corners = [
        (top, left, (1 - down) * (1 - along)),
        (top, right, (1 - down) * along),
        (bottom, left, down * (1 - along)),
        (bottom, right, down * along),
    ]
    # To the right, below and on both diagonals; at the border a cell stands for the one that is not there.
    padded = F.pad(features[None], (0, 1, 0, 1), mode="replicate")[0]
    here, east, south, both = padded[:, :-1, :-1], padded[:, :-1, 1:], padded[:, 1:, :-1], padded[:, 1:, 1:]
    square, rightwards, downwards = ((here * other).sum(0) for other in (here, east, south))
    falling, rising = (here * both).sum(0), (east * south).sum(0)
    (_, _, nw), (_, _, ne), (_, _, sw), (_, _, se) = corners
    total = sum(weight**2 * square[rows][:, columns] for rows, columns, weight in corners)
    total = total + 2 * (nw * ne * rightwards[top][:, left] + sw * se * rightwards[bottom][:, left])
    total = total + 2 * (nw * sw * downwards[top][:, left] + ne * se * downwards[top][:, right])
    total = total + 2 * (nw * se * falling[top][:, left] + ne * sw * rising[top][:, left])
    return total.clamp_min(0).sqrt()


def _between(length: int, cells: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel along one side: the cell before it, the one after it, and the share of the latter."""
    at = ((torch.arange(length, device=device) + 0.5) * (cells / length) - 0.5).clamp(0, cells - 1)
    low = at.floor().long()
    return low, (low + 1).clamp_max(cells - 1), at - low
