"""log sum_t e^(q k_t) of an attention, from a kernel that never writes its scores down (flash attention).

With it the probability of a few keys among many takes their own scores only: P_t = e^(q k_t - log sum). This matters
where text and picture share one attention: a word is one key among thousands.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .heads import by_head, width

# Kernels of PyTorch that also give the sum, which they accumulate in float32. The GPU's takes half precision only.
_CPU = "_scaled_dot_product_flash_attention_for_cpu"
_CUDA = "_scaled_dot_product_flash_attention"
_HALF = (torch.float16, torch.bfloat16)

# Positions at a time: the kernel also makes the attention's output, which is let go.
_POSITIONS = 1024


def log_sums(q: Tensor, k: Tensor, heads: int, mask: Tensor | None, scale: float | None) -> Tensor | None:
    """log sum_t e^(q k_t scale) over all keys, float32 [B,H,Q]; None where no kernel gives it.

    q, k, heads, scale: see `probabilities.probabilities`. There is none with a mask, for heads of an unusual width, and
    on other devices than CPU and CUDA.
    """
    d = width(q, heads)
    kernel = _kernel(q, d)
    if kernel is None or mask is not None:
        return None
    q, k = by_head(q, d), by_head(k, d)
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    parts = q.split(_POSITIONS, dim=2)
    return torch.cat([kernel(part, k, k, scale=scale)[1][..., : part.shape[2]] for part in parts], dim=2).float()


def _kernel(q: Tensor, d: int) -> object | None:
    """PyTorch's operator for these queries, None if it has none."""
    if q.device.type == "cpu" and q.dtype == torch.float32:
        return getattr(torch.ops.aten, _CPU, None)
    if q.device.type != "cuda" or q.dtype not in _HALF or d % 8 or d > 256 or not hasattr(torch.ops.aten, _CUDA):
        return None
    # flash attention needs compute capability 8.0
    return getattr(torch.ops.aten, _CUDA) if torch.cuda.get_device_capability(q.device) >= (8, 0) else None
