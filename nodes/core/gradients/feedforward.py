"""The rest of a transformer block behind its cross-attention, derived in closed form.

In SD 1.x and 2.x the features y at one position follow from the attention's output a at that position by

    x = r + O a,    y = s + C (x + D (v * gelu(g))),    (v, g) = U (gamma n + beta) + b,    n = layer norm of x

with r and s independent of a. Adding 1 to the probability of token t in head h changes x by d = O value[h,t], the same
vector at every position. So U meets d but once, and the derivative of y at a position is, with F channels inside,

    C d + C D (Av * G + Ag * H) - m(n d) C D K            (Av, Ag) = U (gamma (d - m(d)))       [2F], m: mean over x

    G = rho gelu(g),  H = rho v gelu'(g),  K = G Wv + H Wg,  (Wv, Wg) = U (gamma n)             [2F], rho: of the norm

which leaves one matrix product, by C D, per head and token: a quarter of a pass through the block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .definition import WordAttention


@dataclass(frozen=True)
class Feedforward:
    """The layers behind a cross-attention, as they ran.

    x: what entered the layer norm, [B,Q,K]. out: O, [K,H*d]. gamma, beta [K], eps: of the norm. up: U, [2F,K], its
    bias [2F]. down: C D, [M,F]. last: C, [M,K].
    """

    x: Tensor
    out: Tensor
    gamma: Tensor
    beta: Tensor
    eps: float
    up: Tensor
    up_bias: Tensor
    down: Tensor
    last: Tensor

    def derive(self, words: WordAttention) -> Derivative:
        """dy/dP at the words' probabilities."""
        heads = words.change.shape[1]
        per_head = self.out.unflatten(1, (heads, -1))
        d = torch.einsum("khi,bnhi->bhnk", per_head, words.values.unflatten(-1, (heads, -1))).flatten(1, 2)
        variance, mean = torch.var_mean(self.x, dim=-1, correction=0, keepdim=True)
        rho = (variance + self.eps).rsqrt()
        n = (self.x - mean) * rho
        normed = F.linear(self.gamma * n, self.up)
        v, g = (normed + (F.linear(self.beta, self.up) + self.up_bias)).chunk(2, dim=-1)
        share = 0.5 * (1 + torch.erf(g * math.sqrt(0.5)))
        gates = rho * g * share
        slopes = rho * v * (share + g * torch.exp(-0.5 * g * g) / math.sqrt(2 * math.pi))
        w_v, w_g = normed.chunk(2, dim=-1)
        return Derivative(
            straight=F.linear(d, self.last),
            amounts=F.linear(self.gamma * (d - d.mean(-1, keepdim=True)), self.up),
            overlaps=n @ d.transpose(1, 2) / n.shape[-1],
            gates=gates,
            slopes=slopes,
            centre=F.linear(gates * w_v + slopes * w_g, self.down),
            down=self.down,
        )


@dataclass(frozen=True)
class Derivative:
    """dy/dP for D = H*N heads and tokens (token fastest), see the module's text.

    straight: C d, [B,D,M]. amounts: Av and Ag, [B,D,2F]. overlaps: m(n d), [B,Q,D]. gates, slopes: G and H, [B,Q,F].
    centre: C D K, [B,Q,M]. down: C D, [M,F].
    """

    straight: Tensor
    amounts: Tensor
    overlaps: Tensor
    gates: Tensor
    slopes: Tensor
    centre: Tensor
    down: Tensor

    def column(self, i: int) -> Tensor:
        """dy/dP of the i-th head and token: [B,Q,M]."""
        by_value, by_gate = self.amounts[:, i, None].chunk(2, dim=-1)
        inner = torch.addcmul(self.gates * by_value, self.slopes, by_gate)
        out = F.linear(inner, self.down)
        return out.addcmul_(self.overlaps[..., i, None], self.centre, value=-1).add_(self.straight[:, i, None])

    def pulled(self, seed: Tensor) -> Tensor:
        """sum_m seed[b,q,m] dy[b,q,m]/dP for all heads and tokens at once: [B,Q,D]."""
        back = seed @ self.down
        by_value, by_gate = self.amounts.transpose(1, 2).chunk(2, dim=1)
        inner = (back * self.gates) @ by_value + (back * self.slopes) @ by_gate
        shift = (seed * self.centre).sum(-1, keepdim=True)
        return seed @ self.straight.transpose(1, 2) + inner - self.overlaps * shift
