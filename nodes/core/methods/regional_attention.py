"""Regional attention: parts of a picture look at prompts of their own, in the same model call.

In every cross-attention layer, where m_r is the mask of region r on the layer's grid, K_r and V_r are made from its
prompt and K_0, V_0 from the base prompt (Attention Couple by laksjdjf and Haoming02, Regional Prompter by hako-mikan):

    O = (1 - (1 - b) Σ_r m_r) ∘ A(q, K_0, V_0) + (1 - b) Σ_r m_r ∘ A(q, K_r, V_r)

b is the share that the base prompt keeps inside. Where masks overlap so that Σ m > 1, they are divided by Σ m: shares
always sum to 1, and the base prompt has what nothing covers. Self-attention is left alone, so that parts become one
picture.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def shares(masks: Tensor, base: float = 0.0) -> Tensor:
    """The share of each prompt at every place: float32 [1+R,B,h,w], the base prompt's first; they sum to 1.

    masks: [R,B,h,w], 0 or more. base: b, which the base prompt keeps inside the masks.
    """
    covered = masks.float().sum(0)
    each = (1 - base) * masks.float() / covered.clamp_min(1)
    own = 1 - (1 - base) * covered.clamp_max(1)
    return torch.cat([own.unsqueeze(0), each])


def on_grid(of_places: Tensor, grid: tuple[int, int]) -> Tensor:
    """Shares [1+R,B,h,w] on a layer's grid, as queries are counted: the mean over each place, [1+R,B,Q]."""
    return F.interpolate(of_places, size=grid, mode="area").flatten(2)


def coverage(area: tuple[float, float, float, float], size: tuple[int, int]) -> Tensor:
    """How much of each place of a latent (h, w) a rectangle covers: float32 [h,w].

    area: its height, width, top and left edge as shares of the latent's.
    """
    height, width, top, left = area
    (h, w) = size
    return _covered(top * h, (top + height) * h, h).unsqueeze(1) * _covered(left * w, (left + width) * w, w)


def _covered(start: float, end: float, count: int) -> Tensor:
    """How much of each of `count` places lies between two positions."""
    places = torch.arange(count, dtype=torch.float64)
    return ((places + 1).clamp_max(end) - places.clamp_min(start)).clamp(0, 1).float()


def divided(ratios: str) -> list[tuple[float, float, float, float]]:
    """The parts of a picture that ratios name, row by row: height, width, top and left edge as shares of it.

    `1,2` are two columns, the right one twice as wide. Of several rows, separated by `;`, the first number is the row's
    height and the others are its columns: `1;2` two rows, `1,1,1;2` two columns above a row twice as high. Raises
    ValueError for anything else.
    """
    rows = [_numbers(row, ratios) for row in ratios.split(";")]
    if len(rows) == 1:
        rows = [[1.0, *rows[0]]]
    heights = [row[0] for row in rows]
    cells = []
    for i, (height, *columns) in enumerate(rows):
        columns = columns or [1.0]
        top, total = sum(heights[:i]) / sum(heights), sum(columns)
        for j, column in enumerate(columns):
            cells.append((height / sum(heights), column / total, top, sum(columns[:j]) / total))
    return cells


def _numbers(row: str, ratios: str) -> list[float]:
    try:
        found = [float(each) for each in row.split(",")]
    except ValueError:
        found = []
    if not found or not all(0 < each < float("inf") for each in found):
        raise ValueError(
            f"ratios {ratios!r}: {row.strip()!r} is not a list of numbers above 0. Write 1,2 for two columns, of which "
            "the right one is twice as wide, 1;2 for two rows, or 1,1,1;2 for two columns above a row twice as high"
        )
    return found
