"""Abs-Grad-SAM by structure: exact, in a number of passes that does not grow with the image.

After the last cross-attention of SD 1.x and 2.x no position depends on another (`features`) until one GroupNorm, SiLU
and one convolution (the `Head`) make the prediction. So the Jacobian with respect to the probabilities P at position q
is

    dz[c,p]/dP[q] = sum_m W[c,m,q-p] F[m,q] M[m,q]                                     local: 3 x 3 positions
                  - 1/N sum_g A[c,p,g] sum_{m in g} M[m,q]                             low rank: the groups' means
                  - 1/N sum_g B[c,p,g] sum_{m in g} n[m,q] M[m,q]                      low rank: their variances

    y: features. n = (y - mean) rho, rho = 1/sqrt(variance + eps), u = gamma n + beta, F = gamma SiLU'(u)
    A, B: the convolution of F and of F n, of group g's channels alone. N: elements of a group. M = rho dy/dP

dy/dP is known in closed form where the layers are the usual ones (`derivative`), else it takes one forward-mode pass
per head and token. The sum of |dz/dP| P over all positions is then one chunked matrix product of rank 2 x groups, with
the 3 x 3 positions put right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..choices import one_of
from .definition import POLARITIES, Progress, WordAttention, polarised
from .derivative import Derivative, columns_by_autograd, is_pointwise

# Rows and columns of a block of the matrix product: on a CPU small enough to stay in its cache (1 MiB), else large
# enough to keep the device busy (16 MiB).
BLOCK_ON_CPU, BLOCK_ON_GPU = 512, 2048


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
    """Everything in the Jacobian but dy/dP, see the module's text; positions before channels.

    rho [B,1,M]. n, slope: n and F times rho, [B,Q,M]. weight [M,Ck²]. member: 1 where m is in group g, [M,G].
    left: A and B over -N, [B,Q,C,2G].
    """

    rho: Tensor
    n: Tensor
    slope: Tensor
    weight: Tensor
    member: Tensor
    left: Tensor

    def contract(self, derivative: Tensor) -> tuple[Tensor, Tensor]:
        """The sums over m for one column of dy/dP, [B,Q,M]: local ones [B,Q,Ck²], those of the groups [B,Q,2G]."""
        local = (self.slope * derivative) @ self.weight
        means, variances = (self.rho * derivative) @ self.member, (self.n * derivative) @ self.member
        return local, torch.cat([means, variances], dim=-1)


def obstacle(
    words: WordAttention, features: Tensor, head: Head | None, prediction: Tensor, derivative: Derivative | None
) -> str | None:
    """Why `structured` would not be exact for this recorded prediction [B,C,h,w]; None when it is.

    head: None where the model ends differently. The rest: see `structured`.
    """
    if head is None:
        return "the model does not end in a group norm, SiLU and one convolution"
    if derivative is None and not is_pointwise(words, features):
        return "another node mixes positions after the last cross-attention"
    if not torch.allclose(head(features), prediction, rtol=1e-3, atol=1e-4 * abs(head.scale)):
        return "another node changes what the model computes after its last block"
    return None


def structured(
    words: WordAttention,
    features: Tensor,
    head: Head,
    polarity: str,
    progress: Progress | None = None,
    derivative: Derivative | None = None,
) -> Tensor:
    """The same [S,B,C,h,w] as `definition.brute_force` of `head(features)`, up to rounding.

    features: [B,M,h,w], recorded as a function of `words.change`; Q = h w positions, each a function of the same
    position of `words.change` only (see `is_pointwise`). derivative: of the features where it is known in closed form
    (see `agrees_with_autograd`); else autograd finds it, which takes several times longer. Raises ValueError for an
    unknown polarity or another number of positions.
    """
    one_of("polarity", polarity, POLARITIES)
    (b, h, q, n), (height, width) = words.change.shape, features.shape[-2:]
    if q != height * width:
        raise ValueError(f"{q} query positions do not lie on the features' {height}x{width} grid")
    report = progress or (lambda done, total: None)
    factors = _factors(features.detach(), head)
    column = columns_by_autograd(words, features) if derivative is None else derivative.column
    local = features.new_empty((b, n, q, h, factors.weight.shape[1]))
    low = features.new_empty((b, n, q, h, factors.left.shape[-1]))
    passes, products = h * n, b * n
    # passes and products count alike in the progress, and within a product its blocks do
    blocks = _blocks(q * factors.left.shape[2], features) * _blocks(q * h, features)
    total = (passes + products) * blocks
    for i in range(passes):
        local[:, i % n, :, i // n], low[:, i % n, :, i // n] = factors.contract(column(i))
        report((i + 1) * blocks, total)
    for each in (local, low):
        each *= words.probabilities.permute(0, 3, 2, 1).unsqueeze(-1)
    per_token = features.new_empty((n, b, factors.left.shape[2], q))
    for i in range(n):
        for j in range(b):
            before = (passes + i * b + j) * blocks
            per_token[i, j] = _summed(
                factors.left[j],
                local[j, i],
                low[j, i],
                (height, width),
                polarity,
                lambda done, before=before: report(before + done, total),
            )
    return words.per_subject(per_token).unflatten(-1, (height, width))


def _factors(y: Tensor, head: Head) -> _Factors:
    """The closed forms of everything after the features y [B,M,h,w]."""
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
    left = torch.cat([x.unflatten(1, (groups, c)) for x in both], dim=1).flatten(3).permute(0, 3, 2, 1)
    rho = rho.expand(-1, -1, per_group).reshape(b, m, 1)
    return _Factors(
        rho.transpose(1, 2),
        (rho * n).transpose(1, 2).contiguous(),
        (rho * slope).transpose(1, 2).contiguous(),
        weight.permute(1, 0, 2, 3).reshape(m, -1).contiguous(),
        torch.eye(groups, device=y.device).repeat_interleave(per_group, 0),
        left.contiguous() / -flat.shape[-1],
    )


def _summed(
    left: Tensor, local: Tensor, low: Tensor, grid: tuple[int, int], polarity: str, report: Callable[[int], None]
) -> Tensor:
    """sum_h sum_q |P dz/dP| of one token and latent (or of its positive part): [C,Q].

    left: [Q,C,2G]. local [Q,H,Ck²], low [Q,H,2G]: the contractions times P. report: see `_product_amounts`.
    """
    q, c, _ = left.shape
    total = _product_amounts(left.flatten(0, 1), low.flatten(0, 1), polarity, report).view(q, c)
    size = math.isqrt(local.shape[-1] // c)
    around = (0, 0, 0, 0, *[size // 2] * 4)
    local, low = (F.pad(x.unflatten(0, grid), around) for x in (local, low))
    for offset in range(size * size):
        there = slice(offset // size, offset // size + grid[0]), slice(offset % size, offset % size + grid[1])
        near = local[there].flatten(0, 1).unflatten(2, (c, -1))[..., offset].transpose(1, 2)
        far = torch.bmm(left, low[there].flatten(0, 1).transpose(1, 2))
        total += (polarised(far + near, polarity) - polarised(far, polarity)).sum(2)
    return total.T


def _product_amounts(left: Tensor, right: Tensor, polarity: str, report: Callable[[int], None]) -> Tensor:
    """The absolute or positive values of left [I,R] times right [J,R] transposed, summed over J: [I].

    report: called with the number of blocks that are done after each; it may raise to cancel.
    """
    total = left.new_zeros(left.shape[0])
    size = _block_size(left)
    block = left.new_empty((size, size))
    done = 0
    for start in range(0, len(left), size):
        rows = left[start : start + size]
        for other in range(0, len(right), size):
            columns = right[other : other + size].T
            # the same memory for all blocks: it stays in the processor's cache
            part = torch.mm(rows, columns, out=block[: rows.shape[0], : columns.shape[1]])
            total[start : start + size] += (part.abs_() if polarity == "absolute" else part.clamp_min_(0)).sum(1)
            done += 1
            report(done)
    return total


def _blocks(count: int, like: Tensor) -> int:
    """How many blocks `count` rows or columns make, on the device of `like`."""
    return -(-count // _block_size(like))


def _block_size(like: Tensor) -> int:
    return BLOCK_ON_CPU if like.device.type == "cpu" else BLOCK_ON_GPU
