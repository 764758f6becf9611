"""Abs-Grad-SAM without a backward pass, where a transformer ends in a block whose attention and MLP are parallel.

Flux and its relatives: what the last block's attention a and MLP m give to the residual stream x at one token is

    y = x + g * (W a + V m + b),    z = A n + c,    n = layer norm of y

with the gate g and everything but a independent of the probabilities P. A [K,D] is the last linear layer times the
scales that follow the norm. Adding 1 to the probability of token t in head h changes y by w = g * (W value[h,t]), so

    dz[k]/dP[h,q,t] = rho ((A[k] - mean A[k]) . w - (A[k] . n / D) (n . w))          rho = 1 / sqrt(variance + eps)

where the first product is the same at all tokens, and the others are products of matrices.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..choices import one_of
from .definition import POLARITIES, Progress, WordAttention, polarised


@dataclass(frozen=True)
class ParallelBlock:
    """The layers after the last attention, as they ran.

    stream: y, [B,Q,D]. eps: of the norm. out: W, [D,H*d]. gate: g, [B,1 or Q,D]. last: the linear layer's weight [K,D].
    scales: what follows the norm, [B,1 or Q,D]. scale: the prediction is `scale` times z (plus a constant).
    """

    stream: Tensor
    eps: float
    out: Tensor
    gate: Tensor
    last: Tensor
    scales: Tensor
    scale: float = 1.0

    def scores(self, words: WordAttention, polarity: str, progress: Progress | None = None) -> Tensor:
        """The same [S,B,Q,K] as `patches.patchwise`, up to rounding. Raises ValueError for an unknown polarity."""
        one_of("polarity", polarity, POLARITIES)
        variance, mean = torch.var_mean(self.stream, dim=-1, correction=0, keepdim=True)
        rho = (variance + self.eps).rsqrt()
        n = (self.stream - mean) * rho
        heads = words.change.shape[1]
        per_head = self.out.unflatten(1, (heads, -1))
        values = torch.einsum("dhi,bthi->bhtd", per_head, words.values.unflatten(-1, (heads, -1))).flatten(1, 2)
        along = (n * self.gate) @ values.transpose(1, 2)  # n . w: [B,Q,H*T]
        count, found = len(self.last), []
        for k in range(count):
            row = self.last[k] * self.scales  # A[k]: [B,1 or Q,D]
            straight = ((row - row.mean(-1, keepdim=True)) * self.gate) @ values.transpose(1, 2)
            share = (row * n).mean(-1, keepdim=True)
            gradient = (self.scale * rho * (straight - share * along)).unflatten(-1, (heads, -1))
            weighted = words.probabilities * polarised(gradient.transpose(1, 2), polarity)
            found.append(words.per_subject(weighted.sum(1).permute(2, 0, 1)))
            if progress is not None:
                progress(k + 1, count)
        return torch.stack(found, dim=-1)
