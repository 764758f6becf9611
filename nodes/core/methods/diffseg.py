"""DiffSeg (Tian et al. 2024, CVPR): a picture cut into regions by its self-attention alone, without words or training.

Places whose attention is distributed alike belong together. A grid of anchors gathers the places that are alike, what
they gathered is merged twice more, and every pixel goes to the distribution that is largest there. How alike two
distributions are is D(a, b) = KL(a|b)/2 + KL(b|a)/2.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ..gradients.definition import Progress

# Gathering, and merging twice, all with one threshold, as in the published code.
ROUNDS = 3

# Below this a probability's logarithm is that of this one; in half precision, as published, it could be that of 0.
_LEAST = 1e-12

# Places that are compared with all anchors at once: in float32 16 MiB of 4096 places.
PLACES = 1024

_MOST_MEANS = 300  # steps of k-means; some 20 are usual


def segment(
    attention: Tensor,
    grid: tuple[int, int],
    size: tuple[int, int],
    threshold: float,
    anchors: int,
    k_means: bool,
    progress: Progress,
    covered: tuple[int, int] | None = None,
) -> Tensor:
    """The region of every pixel: int64 [H,W], numbers from 0, of which some may have no pixel.

    attention: what every place attends to, float32 [h*w,h*w] of rows that sum to 1, on `grid` (h, w). size: (H, W).
    threshold: of D; the larger, the fewer regions. anchors: along the longer side. k_means: see there. progress: it may
    raise to cancel. covered: (H, W) of what the places cover, where the last ones reach beyond the picture. Raises
    ValueError for a negative threshold or no anchor.
    """
    if not threshold >= 0:
        raise ValueError(f"threshold {threshold} is negative; 0.9 to 1.1 are usual, 0 joins nothing")
    places = anchor_places(grid, anchors).to(attention.device)
    found = gather(attention, places, threshold, lambda done, total: progress(done, 2 * total))
    for _ in range(ROUNDS - 1):
        found = merge(found, threshold)
    if k_means:
        found = means(attention, found, lambda done, total: progress(total + done, 2 * total))
    height, width = size
    labels = largest(found, grid, covered or size)[:height, :width].contiguous()
    progress(1, 1)
    return labels


def anchor_places(grid: tuple[int, int], anchors: int) -> Tensor:
    """The numbers of a regular grid's places: int64, `anchors` along the longer side and in proportion along the other.

    They stand (n-1) // (anchors-1) places apart, in the middle: 1, 5 ... 61 for 16 of 64. Raises ValueError for none.
    """
    if anchors < 1:
        raise ValueError(f"anchors {anchors} must be at least 1; 16 are usual")
    longer = max(grid)
    y, x = (_spread(side, max(1, round(anchors * side / longer))) for side in grid)
    return (y.unsqueeze(1) * grid[1] + x).flatten()


def distances(a: Tensor, b: Tensor) -> Tensor:
    """D of each of the distributions a [P,N] and b [Q,N]: float32 [P,Q], none below 0.

    Entropies are computed once for each, the rest is two products of matrices.
    """
    log_a, log_b = (each.clamp_min(_LEAST).log() for each in (a, b))
    own = (a * log_a).sum(-1).unsqueeze(1) + (b * log_b).sum(-1)
    return (own - a @ log_b.T - log_a @ b.T).div_(2).clamp_min_(0)


def gather(attention: Tensor, anchors: Tensor, threshold: float, progress: Progress) -> Tensor:
    """The mean of the rows closer than `threshold` to each anchor, itself among them: float32 [P,N].

    attention: [N,N]. anchors: row numbers [P].
    """
    at = attention[anchors]
    sums, counts = torch.zeros_like(at), at.new_zeros(len(at), 1)
    for start in range(0, len(attention), PLACES):
        rows = attention[start : start + PLACES]
        numbers = torch.arange(start, start + len(rows), device=rows.device)
        near = ((distances(at, rows) < threshold) | (numbers == anchors.unsqueeze(1))).to(rows)
        sums += near @ rows
        counts += near.sum(1, keepdim=True)
        progress(min(start + PLACES, len(attention)), len(attention))
    return sums / counts


def merge(proposals: Tensor, threshold: float) -> Tensor:
    """Fewer proposals, [P',N], of these [P,N].

    In their order, each that is not yet part of one before it becomes the mean of all that are closer than `threshold`
    to it, itself and those that are already part of one before it among them.
    """
    near = (distances(proposals, proposals) < threshold).fill_diagonal_(True)
    rows, joined, groups = near.tolist(), set(), []
    for i, row in enumerate(rows):
        if i not in joined:
            joined.update(j for j, close in enumerate(row) if close)
            groups.append(i)
    members = near[torch.tensor(groups, device=near.device)].to(proposals)
    return members @ proposals / members.sum(1, keepdim=True)


def means(attention: Tensor, centres: Tensor, progress: Progress) -> Tensor:
    """k-means of the rows [N,N] from these centres [P,N], until no row changes its centre: the centres that have rows.

    The published code's last step where it is asked to refine. The distance here is Euclidean.
    """
    labels = None
    for step in range(_MOST_MEANS):
        progress(step, _MOST_MEANS)
        closest = ((centres * centres).sum(-1) - 2 * attention @ centres.T).argmin(1)
        if labels is not None and torch.equal(closest, labels):
            break
        labels = closest
        members = F.one_hot(labels, len(centres)).to(attention).T
        counts = members.sum(1, keepdim=True)
        # a centre without rows stays where it was
        centres = torch.where(counts > 0, members @ attention / counts.clamp_min(1), centres)
    return centres[torch.unique(labels)]


def largest(proposals: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """For every pixel the number of the proposal [P,h*w] that is largest there, the first of equals: int64 [H,W].

    They are enlarged bilinearly from `grid` to `size` (H, W), one at a time.
    """
    best = torch.full(size, -math.inf, device=proposals.device)
    labels = torch.zeros(size, dtype=torch.int64, device=proposals.device)
    for i, proposal in enumerate(proposals):
        value = F.interpolate(proposal.view(1, 1, *grid), size=size, mode="bilinear")[0, 0]
        above = value > best
        best, labels = torch.where(above, value, best), labels.masked_fill(above, i)
    return labels


def _spread(side: int, count: int) -> Tensor:
    """`count` evenly spaced places of a row of `side`, at most all of them, as far from one end as from the other."""
    count = min(count, side)
    apart = (side - 1) // (count - 1) if count > 1 else 0
    return (side - 1 - apart * (count - 1)) // 2 + apart * torch.arange(count)
