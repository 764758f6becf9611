"""Abs-Grad-SAM by structure: exact, in a number of passes that does not grow with the image.

Behind the last cross-attention of SD 1.x and 2.x every position goes its own way (`features`) until one GroupNorm, SiLU
and one convolution (the `Head`) make the prediction. So the Jacobian by the probabilities P at position q is

    dz[c,p]/dP[q] = sum_m W[c,m,q-p] F[m,q] M[m,q]                                     local: 3 x 3 positions
                  - 1/N sum_g A[c,p,g] sum_{m in g} M[m,q]                             low rank: the groups' means
                  - 1/N sum_g B[c,p,g] sum_{m in g} n[m,q] M[m,q]                      low rank: their variances

    y: features. n = (y - mean) rho, rho = 1/sqrt(variance + eps), u = gamma n + beta, F = gamma SiLU'(u)
    A, B: the convolution of F and of F n, of group g's channels alone. N: elements of a group. M = rho dy/dP

dy/dP takes one forward-mode pass per head and token, or one backward pass per term of the sums if those are fewer. The
sum of |dz/dP| P over all positions is then one chunked matrix product of rank 2 x groups, with the 3 x 3 positions put
right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from .grad_sam import POLARITIES, Progress, WordAttention, polarised

# Size of a block of the matrix product: small enough to stay in a processor's cache (16 MiB).
_BLOCK_ELEMENTS = 4 * 1024 * 1024

Report = Callable[[int], None]


@dataclass(frozen=True)
class Head:
    """GroupNorm, SiLU and a convolution of stride 1 that keeps the size.

    groups, eps, gamma [M], beta [M]: of the norm. weight: [C,M,k,k] with odd k. bias: [C]. scale: the prediction is
    `scale` times the convolution's output (plus something that does not depend on the features).
    """

    groups: int
    eps: float
    gamma: Tensor
    beta: Tensor
    weight: Tensor
    bias: Tensor
    scale: float = 1.0

    def __call__(self, features: Tensor) -> Tensor:
        """The prediction [B,C,h,w] for features [B,M,h,w]."""
        normed = F.group_norm(features, self.groups, self.gamma, self.beta, self.eps)
        return self.scale * F.conv2d(F.silu(normed), self.weight, self.bias, padding=self.weight.shape[-1] // 2)


@dataclass(frozen=True)
class _Factors:
    """Everything in the Jacobian but dy/dP, see the module's text.

    rho [B,M,1], n [B,M,Q], slope: F, [B,M,Q], weight [Ck²,M]. left: A and B over -N, [B,C,Q,2G].
    """

    groups: int
    rho: Tensor
    n: Tensor
    slope: Tensor
    weight: Tensor
    left: Tensor

    @property
    def terms(self) -> int:
        """Number of contractions of dy/dP that the sums need: Ck² local ones, a mean and a variance per group."""
        return self.weight.shape[0] + 2 * self.groups

    def contract(self, derivative: Tensor) -> Tensor:
        """All contractions of one column of dy/dP, [B,M,Q]: [B,terms,Q]."""
        m = self.rho * derivative
        sums = [x.unflatten(1, (self.groups, -1)).sum(2) for x in (m, self.n * m)]
        return torch.cat([self.weight @ (self.slope * m), *sums], dim=1)

    def term(self, i: int) -> Tensor:
        """What contraction `i` multiplies dy/dP with, [B,M,Q]."""
        local = self.weight.shape[0]
        if i < local:
            return self.rho * self.slope * self.weight[i].unsqueeze(-1)
        group = (i - local) % self.groups
        member = torch.zeros_like(self.n)
        member.unflatten(1, (self.groups, -1))[:, group] = 1
        return self.rho * (member if i < local + self.groups else member * self.n)


def structured(
    words: WordAttention, features: Tensor, head: Head, polarity: str, progress: Progress | None = None
) -> Tensor:
    """The same [S,B,C,h,w] as `grad_sam.brute_force` of `head(features)`, up to rounding.

    features: [B,M,h,w], recorded as a function of `words.change`; Q = h w positions, each a function of the same
    position of `words.change` only (see `is_pointwise`). Raises ValueError for an unknown polarity or another number of
    positions.
    """
    if polarity not in POLARITIES:
        raise ValueError(f"polarity {polarity!r} is not one of {', '.join(POLARITIES)}")
    (b, h, q, n), (height, width) = words.change.shape, features.shape[-2:]
    if q != height * width:
        raise ValueError(f"{q} query positions do not lie on the features' {height}x{width} grid")
    factors = _factors(features.detach(), head)
    passes, products = min(h * n, factors.terms), b * n
    report: Report = (lambda done: None) if progress is None else (lambda done: progress(done, passes + products))
    derive = _forward if h * n <= factors.terms else _backward
    weighted = derive(words.change, features, factors, report) * words.probabilities.unsqueeze(1)
    per_token = features.new_empty((n, b, factors.left.shape[1], q))
    for i in range(n):
        for j in range(b):
            per_token[i, j] = _summed(factors.left[j], weighted[j, ..., i], (height, width), polarity)
            report(passes + i * b + j + 1)
    return words.per_subject(per_token).unflatten(-1, (height, width))


def is_pointwise(words: WordAttention, features: Tensor) -> bool:
    """Whether features [B,M,h,w] at a position depend on `words.change` at that position only; one backward pass.

    Seeds a checkerboard-like half of the positions: where the structure holds, the gradient at the others is exactly 0.
    """
    if features.shape[-2] * features.shape[-1] != words.change.shape[2]:
        return False
    generator = torch.Generator().manual_seed(0)
    seeded = torch.rand(features.shape[-2:], generator=generator).to(features.device) < 0.5
    seed = seeded.to(features.dtype).expand_as(features)
    (gradient,) = torch.autograd.grad(features, words.change, seed, retain_graph=True)
    return not gradient[:, :, ~seeded.flatten()].any()


def _factors(y: Tensor, head: Head) -> _Factors:
    """The closed forms of everything behind the features y [B,M,h,w]."""
    b, m = y.shape[:2]
    groups, per_group = head.groups, m // head.groups
    flat = y.unflatten(1, (groups, per_group)).flatten(2)
    variance, mean = torch.var_mean(flat, dim=-1, correction=0, keepdim=True)
    rho = (variance + head.eps).rsqrt()
    n = ((flat - mean) * rho).view(b, m, -1)
    u = head.gamma.unsqueeze(-1) * n + head.beta.unsqueeze(-1)
    sigmoid = u.sigmoid()
    slope = head.gamma.unsqueeze(-1) * sigmoid * (1 + u * (1 - sigmoid))
    weight = head.scale * head.weight
    c, _, k, _ = weight.shape
    split = weight.unflatten(1, (groups, per_group)).transpose(0, 1).flatten(0, 1)
    both = [F.conv2d(x.view_as(y), split, padding=k // 2, groups=groups) for x in (slope, slope * n)]
    left = torch.cat([x.unflatten(1, (groups, c)) for x in both], dim=1).flatten(3).permute(0, 2, 3, 1)
    return _Factors(
        groups,
        rho.expand(-1, -1, per_group).reshape(b, m, 1),
        n,
        slope,
        weight.permute(0, 2, 3, 1).reshape(-1, m),
        left.contiguous() / -flat.shape[-1],
    )


def _forward(change: Tensor, y: Tensor, factors: _Factors, report: Report) -> Tensor:
    """The contractions of dy/dP, [B,terms,H,Q,N], by one forward-mode pass per head and token.

    A backward pass is linear in what it is seeded with; deriving that linear map is a forward-mode pass.
    """
    b, h, q, n = change.shape
    seed = torch.zeros_like(y, requires_grad=True)
    (gradient,) = torch.autograd.grad(y, change, seed, create_graph=True)
    out = y.new_empty((b, factors.terms, h, q, n))
    for i in range(h):
        for j in range(n):
            direction = torch.zeros_like(change)
            direction[:, i, :, j] = 1
            (derivative,) = torch.autograd.grad(gradient, seed, direction, retain_graph=True)
            out[:, :, i, :, j] = factors.contract(derivative.flatten(2))
            report(i * n + j + 1)
    return out


def _backward(change: Tensor, y: Tensor, factors: _Factors, report: Report) -> Tensor:
    """The contractions of dy/dP, [B,terms,H,Q,N], by one backward pass per term."""
    out = change.new_empty((change.shape[0], factors.terms, *change.shape[1:]))
    for i in range(factors.terms):
        (out[:, i],) = torch.autograd.grad(y, change, factors.term(i).view_as(y), retain_graph=True)
        report(i + 1)
    return out


def _summed(left: Tensor, weighted: Tensor, grid: tuple[int, int], polarity: str) -> Tensor:
    """sum_h sum_q |P dz/dP| of one token and latent (or of its positive part): [C,Q].

    left: [C,Q,2G]. weighted: the contractions times P, [terms,H,Q].
    """
    c, q, rank = left.shape
    local, low = weighted[:-rank], weighted[-rank:]
    flat, right = left.flatten(0, 1), low.flatten(1)
    total = flat.new_empty(c * q)
    step = max(1, _BLOCK_ELEMENTS // right.shape[1])
    # one block of memory for all: giving back and asking for it each time costs as much as the product
    block = flat.new_empty((min(step, c * q), right.shape[1]))
    for start in range(0, c * q, step):
        part = flat[start : start + step]
        total[start : start + step] = _amounts(torch.mm(part, right, out=block[: len(part)]), polarity)
    total, local = total.view(c, q), local.unflatten(0, (c, -1))
    size = math.isqrt(local.shape[1])
    for offset in range(size * size):
        shift = offset // size - size // 2, offset % size - size // 2
        near = _shifted(local[:, offset], grid, *shift)
        far = torch.einsum("cqr,rhq->chq", left, _shifted(low, grid, *shift))
        total = total + (polarised(far + near, polarity) - polarised(far, polarity)).sum(1)
    return total


def _amounts(block: Tensor, polarity: str) -> Tensor:
    """Sum over the last axis of what counts; `block` is overwritten."""
    if polarity == "absolute":
        return torch.linalg.vector_norm(block, 1, dim=-1)
    return block.clamp_min_(0).sum(-1)


def _shifted(x: Tensor, grid: tuple[int, int], down: int, right: int) -> Tensor:
    """x [...,Q] read `down` and `right` of each position of the grid; 0 outside it."""
    (height, width), reach = grid, max(abs(down), abs(right))
    padded = F.pad(x.unflatten(-1, grid), (reach, reach, reach, reach))
    return padded[..., reach + down :, reach + right :][..., :height, :width].flatten(-2)
