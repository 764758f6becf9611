"""Word maps sharpened with the model's own self-attention: places that attend to each other get similar values.

A_s <- mean_l S_l A_s, n times; S_l = mean_h softmax(q_h k_h^T d^-1/2) is how much every position of layer l attends to
every other one. Once as in DiffSegmenter (Wang et al. 2023), four times as in Dataset Diffusion (Nguyen et al. 2023).
S is never formed: attention with the maps in place of the values is S A, by whatever backend the model runs with.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .probabilities import mask_of_queries

# Authors of this method use one to eight.
MOST_POWERS = 8

# Instead of names of layers: the choice is left to the program.
AUTO = "auto"

# A map with (max - min) / mean below this is the same everywhere, and more powers make it only flatter.
FLAT = 1e-3


@dataclass(frozen=True)
class SelfAttention:
    """One self-attention layer of N = h*w positions.

    q, k: [B,N,H*d]. heads: H. grid: (h, w). attend: the backend, (q, k, v, mask) with Q of the queries ->
    softmax(q k^T d^-1/2 + mask) v of every head, [B,Q,H*d]. mask: as `probabilities` has it. at_once: for how many
    scores, [B,H,Q,N] in all, the backend is called at once.
    """

    q: Tensor
    k: Tensor
    heads: int
    grid: tuple[int, int]
    attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
    mask: Tensor | None = None
    at_once: int = 2**27


def refine(maps: Tensor, layers: Sequence[SelfAttention], power: int) -> tuple[list[Tensor], Tensor]:
    """Maps spread once, twice, up to `power` times along the self-attention of `layers`.

    maps: [S,B,h,w], none below 0; on another grid than that of the finest layer they are brought to it (bilinear) and
    back (area average), for every power also to that of coarser layers (area average) and back (bilinear).
    Returns for each power float32 maps of the same shape, each between the least and the largest value it had on the
    finest layer's grid; what more powers follow changes no bit of them. And how many powers each map has had: int64
    [S,B], fewer than `power` where it has become flat (`FLAT`).
    """
    size, refined, found = maps.shape[-2:], maps.float(), []
    grid = torch.Size(max((layer.grid for layer in layers), key=math.prod))
    if size != grid:
        refined = F.interpolate(refined, size=grid, mode="bilinear")
    powers = torch.zeros(maps.shape[:2], dtype=torch.int64, device=maps.device)
    for _ in range(power):
        low, high = refined.amin((-2, -1), keepdim=True), refined.amax((-2, -1), keepdim=True)
        uneven = high - low > FLAT * refined.mean((-2, -1), keepdim=True)
        refined = torch.where(uneven, _spread(refined, low, high, layers), refined)
        powers += uneven.flatten(1)
        found.append(refined if size == grid else F.interpolate(refined, size=size, mode="area"))
    return found, powers


def _spread(maps: Tensor, low: Tensor, high: Tensor, layers: Sequence[SelfAttention]) -> Tensor:
    """One power: the mean over the layers of S A for maps [S,B,h,w] with these extremes [S,B,1,1].

    Every row of S sums to 1, so S A = low + (high - low) S A' with A' from 0 to 1, which is what half precision holds
    best; A itself may be above its range or below its resolution.
    """
    width = high - low
    scaled = (maps - low) / width.clamp_min(torch.finfo(torch.float32).tiny)
    found = torch.stack([_on_its_grid(scaled, layer) for layer in layers]).mean(0)
    return low + width * found.clamp(0.0, 1.0)


def _on_its_grid(maps: Tensor, layer: SelfAttention) -> Tensor:
    """S A of one layer for maps [S,B,h,w] of its grid or a finer one."""
    size = maps.shape[-2:]
    if size == torch.Size(layer.grid):
        return _attended(maps.flatten(2), layer).view_as(maps)
    there = F.interpolate(maps, size=layer.grid, mode="area")
    return F.interpolate(_attended(there.flatten(2), layer).view_as(there), size=size, mode="bilinear")


def _attended(maps: Tensor, layer: SelfAttention) -> Tensor:
    """S A of one layer for maps [S,B,N]; in one call of the backend as many maps as a head has channels.

    The queries are cut, so that a backend that writes its scores down never writes down all of a large S.
    """
    b, n, inner = layer.q.shape
    d, step = inner // layer.heads, max(1, layer.at_once // (b * n * layer.heads))
    found = torch.empty_like(maps)
    for first in range(0, len(maps), d):
        some = maps[first : first + d]
        values = layer.q.new_zeros((b, n, layer.heads, d))
        values[..., : len(some)] = some.permute(1, 2, 0).unsqueeze(2)
        for start in range(0, n, step):
            rows = slice(start, start + step)
            out = layer.attend(layer.q[:, rows], layer.k, values.flatten(2), mask_of_queries(layer.mask, rows))
            shares = out.unflatten(-1, (layer.heads, d))[..., : len(some)].float().mean(2)
            found[first : first + d, :, rows] = shares.permute(2, 0, 1)
    return found
