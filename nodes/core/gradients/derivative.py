"""How the features after a cross-attention change with its probabilities: dy/dP.

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
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .definition import WordAttention


@dataclass(frozen=True)
class Feedforward:
    """The layers after a cross-attention, as they ran.

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

    def derivative(self, words: WordAttention) -> Derivative:
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


def columns_by_autograd(words: WordAttention, y: Tensor) -> Callable[[int], Tensor]:
    """Return a function that computes a column of dy/dP, [B,Q,M]: one forward-mode pass per head and token.

    y: features [B,M,h,w], recorded as a function of `words.change` [B,H,Q,N]. A backward pass is linear in what it is
    seeded with; differentiating that linear map is a forward-mode pass.
    """
    change, seed = words.change, torch.zeros_like(y, requires_grad=True)
    # all zeros, and needed for its record only: there is nothing to scale
    (gradient,) = torch.autograd.grad(y, change, seed, create_graph=True)

    def column(i: int) -> Tensor:
        direction = torch.zeros_like(change)
        direction[:, i // change.shape[3], :, i % change.shape[3]] = 1
        (derivative,) = words.loss_scale.gradients(gradient, [seed], direction)
        return derivative.flatten(2).transpose(1, 2)

    return column


def agrees_with_autograd(derivative: Derivative, words: WordAttention, features: Tensor) -> bool:
    """Whether `derivative` is that of the recorded features [B,M,h,w]; one backward pass.

    Compares every probability's effect on one random mixture of the features of the whole picture, so that another
    scale, a position that affects another one, or a layer in between do not stay hidden.
    """
    if features.shape[-2] * features.shape[-1] != words.change.shape[2]:
        return False
    seed = torch.randn(features.shape[1:], generator=torch.Generator().manual_seed(0)).to(features)
    (gradient,) = words.loss_scale.gradients(features, [words.change], seed.expand_as(features), terms=seed.numel())
    found = derivative.pulled(seed.flatten(1).T.expand(features.shape[0], -1, -1))
    found = found.unflatten(-1, (words.change.shape[1], -1)).transpose(1, 2)
    return torch.allclose(found, gradient, rtol=1e-3, atol=1e-4 * float(gradient.abs().mean()))


def is_pointwise(words: WordAttention, features: Tensor) -> bool:
    """Whether features [B,M,h,w] at a position depend on `words.change` at that position only; one backward pass.

    Seeds a checkerboard-like half of the positions: where the structure holds, the gradient at the others is exactly 0.
    """
    if features.shape[-2] * features.shape[-1] != words.change.shape[2]:
        return False
    generator = torch.Generator().manual_seed(0)
    seeded = torch.rand(features.shape[-2:], generator=generator).to(features.device) < 0.5
    seed = seeded.to(features.dtype).expand_as(features)
    (gradient,) = words.loss_scale.gradients(features, [words.change], seed, terms=features[0].numel())
    return not gradient[:, :, ~seeded.flatten()].any()
