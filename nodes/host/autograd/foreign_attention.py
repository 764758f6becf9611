"""Attention that autograd can differentiate, and a check whether another node's attention is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.attention.heads import by_head, width
from ..attention.attention_call import Processor
from ..patch_names import patch_name

Compute = Callable[[Tensor, Tensor, Tensor], Tensor]

# Steps of finite differences, in standard deviations of what goes in. The small one, both ways, is the derivative; the
# large one says how much each element of the output counts in it, so that rounding (in bfloat16) averages out.
_STEP, _FAR = 0.02, 0.1

# Largest relative difference between the measured derivative and autograd's; in float32 it is 0.2 %.
_TOLERANCE = 0.02


def differentiable_attention(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, scale: float | None = None, **options: Any
) -> Tensor:
    """Attention in float32 that autograd can differentiate: [rows,Q,H*d] for q [rows,Q,H*d], k and v [rows,T,H*d].

    Or of q [rows,H,Q,d], k and v [rows,H,T,d]. mask: [Q,T], [rows,Q,T] or [rows,H,Q,T], added or (bool) True where
    kept. options: the host's, without effect.
    """
    return attention_in_own_precision(q.float(), k.float(), v.float(), heads, mask, scale)


def attention_in_own_precision(
    q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, scale: float | None = None, **options: Any
) -> Tensor:
    """As `differentiable_attention`, in the precision of q."""
    d = width(q, heads)
    q, k, v = (by_head(x, d) for x in (q, k.to(q), v.to(q)))
    if mask is not None and mask.ndim == 3:
        mask = mask.unsqueeze(1)
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(q)
    return F.scaled_dot_product_attention(q, k, v, mask, scale=scale).transpose(1, 2).flatten(2)


class RecordedAttention(Processor):
    """Where autograd records, attention is computed such that gradients pass it.

    That of the host's backends is computed by `attention` instead, as these compute in place or without a derivative;
    that of other nodes has to let gradients pass, and is refused if it does not. passed: is told the names of theirs.
    """

    def __init__(self, attention: Callable[..., Tensor], passed: list[str]) -> None:
        self._attention = attention
        self._passed = passed

    def backend(self, attention: Callable) -> Callable:
        """See `Processor`."""
        return self._attention if torch.is_grad_enabled() else attention

    def foreign(self, patch: Callable, compute: Compute) -> Compute:
        """See `Processor`."""

        def followed_and_named(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            out = followed(patch, compute, q, k, v)
            if out.requires_grad:
                self._passed.append(patch_name(patch))
            return out

        return followed_and_named


def followed(patch: Callable, compute: Compute, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """`compute(q, k, v)`, the attention by another node's `patch`, if autograd can differentiate it.

    Autograd takes the output of an optimised kernel (SageAttention, say) for constant, wholly or in part, and every
    gradient through it would be wrong without a warning. So where gradients pass the attention, its derivative along a
    random direction is measured with three more calls and compared with autograd's.

    Raises ValueError naming the patch when they differ, or when autograd cannot differentiate it at all.
    """
    inputs = [x.view_as(x) for x in (q, k, v)]  # so that each has a gradient of its own, should two be the same
    variables = [x for x in inputs if x.requires_grad]
    if not variables:
        return compute(q, k, v)
    directions = [_direction(x, seed) if x.requires_grad else None for seed, x in enumerate(inputs)]
    ahead, back, far = (_moved(compute, inputs, directions, step) for step in (_STEP, -_STEP, _FAR))
    try:
        out = compute(*(x.clone() for x in inputs))  # which may be changed in place
        gradients, weights = [None] * len(variables), far - out.detach().float()
        if out.requires_grad:
            gradients = torch.autograd.grad(out, variables, weights.to(out.dtype), retain_graph=True, allow_unused=True)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ValueError(_refusal(patch, str(error).strip())) from error
    along = [d for d in directions if d is not None]
    found = sum(float((g.float() * d).sum()) for g, d in zip(gradients, along, strict=True) if g is not None)
    expected = float((weights * (ahead - back)).sum()) / (2 * _STEP)
    if not abs(found - expected) <= _TOLERANCE * abs(expected):
        reason = f"autograd finds the derivative {found:.3g} where its output changes by {expected:.3g}"
        raise ValueError(_refusal(patch, reason))
    return out


def _moved(compute: Compute, inputs: list[Tensor], directions: list[Tensor | None], step: float) -> Tensor:
    """The output in float32 for inputs moved a step along their directions; random numbers are drawn as without it."""
    moved = [
        x.detach().clone() if d is None else (x.detach().float() + step * d).to(x.dtype)
        for x, d in zip(inputs, directions, strict=True)
    ]
    device = inputs[0].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return compute(*moved).detach().float()


def _direction(x: Tensor, seed: int) -> Tensor:
    """Random numbers as large as those of x, float32."""
    random = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).to(x.device)
    return random * x.detach().float().std()


def _refusal(patch: Callable, reason: str) -> str:
    return (
        f"gradients cannot pass the attention that {patch_name(patch)} computes instead of the model: {reason}. "
        "Connect the model without the node that does this (an optimised attention such as SageAttention, for "
        "instance), or use Abs-Grad-SAM by the layer 'last' of SD 1.x or SD 2.x, whose gradients pass no attention"
    )
