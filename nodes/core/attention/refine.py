"""Word maps sharpened with the model's own self-attention: places that attend to each other get similar values.

A_s <- mean_l S_l A_s, n times; S_l = mean_h softmax(q_h k_h^T d^-1/2) is how much every position of layer l attends to
every other one. Once as in DiffSegmenter (Wang et al. 2023), four times as in Dataset Diffusion (Nguyen et al. 2023).
S is never formed: attention with the maps in place of the values is S A, by whatever backend the model runs with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

# Authors of this method use one to eight.
MOST_POWERS = 8

# A map with (max - min) / mean below this is the same everywhere, and more powers make it only flatter.
FLAT = 1e-3


@dataclass(frozen=True)
class SelfAttention:
    """One self-attention layer of N positions.

    q, k: [B,N,H*d]. heads: H. attend: the backend, (q, k, v [B,N,H*d]) -> softmax(q k^T d^-1/2) v of every head,
    [B,N,H*d].
    """

    q: Tensor
    k: Tensor
    heads: int
    attend: Callable[[Tensor, Tensor, Tensor], Tensor]


def refine(maps: Tensor, layers: Sequence[SelfAttention], grid: tuple[int, int], power: int) -> tuple[Tensor, Tensor]:
    """Maps spread `power` times along the self-attention of `layers`, all of which have h*w positions on `grid`.

    maps: [S,B,h',w'], none below 0; on another grid they are brought to the layers' (bilinear) and back (area average).
    Returns float32 maps of the same shape, each between the least and the largest value it had on `grid`, and how many
    powers each has had: int64 [S,B]. That is fewer than `power` where a map has become flat (`FLAT`).
    """
    size, refined = maps.shape[-2:], maps.float()
    if size != torch.Size(grid):
        refined = F.interpolate(refined, size=tuple(grid), mode="bilinear")
    refined = refined.flatten(2)
    powers = torch.zeros(maps.shape[:2], dtype=torch.int64, device=maps.device)
    for _ in range(power):
        low, high = refined.amin(-1), refined.amax(-1)
        uneven = high - low > FLAT * refined.mean(-1)
        refined = torch.where(uneven.unsqueeze(-1), _spread(refined, low, high, layers), refined)
        powers += uneven
    refined = refined.unflatten(-1, tuple(grid))
    return (refined if size == torch.Size(grid) else F.interpolate(refined, size=size, mode="area")), powers


def _spread(maps: Tensor, low: Tensor, high: Tensor, layers: Sequence[SelfAttention]) -> Tensor:
    """One power: the mean over the layers of S A for maps [S,B,N] with these smallest and largest values [S,B].

    Every row of S sums to 1, so S A = low + (high - low) S A' with A' from 0 to 1, which is what half precision holds
    best; A itself may be above its range or below its resolution.
    """
    low, width = low.unsqueeze(-1), (high - low).unsqueeze(-1)
    scaled = (maps - low) / width.clamp_min(torch.finfo(torch.float32).tiny)
    found = torch.stack([_attended(scaled, layer) for layer in layers]).mean(0)
    return low + width * found.clamp(0.0, 1.0)


def _attended(maps: Tensor, layer: SelfAttention) -> Tensor:
    """S A of one layer for maps [S,B,N], as many in one call of the backend as a head has channels."""
    b, n, inner = layer.q.shape
    d = inner // layer.heads
    found = []
    for some in maps.split(d):
        values = layer.q.new_zeros((b, n, layer.heads, d))
        values[..., : len(some)] = some.permute(1, 2, 0).unsqueeze(2)
        out = layer.attend(layer.q, layer.k, values.flatten(2)).unflatten(-1, (layer.heads, d))
        found.append(out[..., : len(some)].float().mean(2).permute(2, 0, 1))
    return torch.cat(found)
