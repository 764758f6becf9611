"""A cross-attention that another program rearranged: which keys hold a text, and how rows were mixed afterwards.

Regional prompting repeats the rows of a picture, once for each region with that region's text as keys, and mixes the
outputs by the regions' masks. NegPip interleaves the tokens that become keys with those that become values. Both are
found here by comparing tensors, so nothing has to be known about the program.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Largest relative difference between a context and a text times one number that still counts as the same text;
# rounding in bfloat16 makes 0.004.
_SAME = 0.02

# Least cosine of a subject's token before and after another program changed it, for it to count as the same token.
_ALIKE = 0.8

# Largest part of mixed rows that weights may leave unexplained, see `_SAME`.
_MIXED = 0.02


def key_positions(context: Tensor, text: Tensor) -> Tensor:
    """Which token of a text each key was made from: int64 [N,T'], -1 for keys that are none of its tokens.

    context: [N,T',d], what the keys are made from. text: [N or 1,T,d], the text as it was encoded. It is found at the
    beginning and repeated from there on, times any positive number. Where every other token of the text became a key
    (the rest are values, NegPip), positions count keys, as the text's tokenizer does.
    """
    length, tokens = context.shape[1], text.shape[1]
    found = torch.full(context.shape[:2], -1, dtype=torch.int64, device=context.device)
    text = text.to(context)
    # the whole text first: only where it is not found are its halves looked for
    for wanted in (text, text[:, ::2]) if tokens % 2 == 0 else (text,):
        period = wanted.shape[1]
        count = length // period
        if count == 0:
            continue
        parts = context[:, : count * period].unflatten(1, (count, period)).float().flatten(2)
        flat = wanted.float().flatten(1).unsqueeze(1)
        factor = (parts * flat).sum(-1, keepdim=True) / (flat * flat).sum(-1, keepdim=True)
        rest = (parts - factor * flat).norm(dim=-1)
        same = (factor.squeeze(-1) > 0) & (rest <= _SAME * parts.norm(dim=-1))
        positions = torch.arange(period, device=context.device).repeat(count)
        here = same.repeat_interleave(period, dim=1)
        found[:, : count * period] = torch.where(here, positions, found[:, : count * period])
        if same.any():
            break
    return found


def is_alike(context: Tensor, text: Tensor, columns: Tensor) -> bool:
    """Whether the subjects' tokens are still where they were, after another program changed or added some.

    context: [N,T',d]. text: [N,T,d] with T <= T'. columns: [T,S], 1 where token t belongs to subject s.
    """
    used = columns.any(dim=1)
    pairs = context[:, : text.shape[1]][:, used].float(), text[:, used].float()
    return bool((torch.cosine_similarity(*pairs, dim=-1) >= _ALIKE).all())


def mixing_weights(parts: Tensor, mixed: Tensor) -> Tensor | None:
    """The weights w that made mixed = sum_k w_k parts_k at every position: float32 [K,B,Q], none below 0.

    parts: [K,B,Q,d] with K <= d. mixed: [B,Q,d]. By least squares over the d channels; parts that are equal share
    their weight evenly. What rounding cannot tell from 0 is 0. None where no weights explain `mixed`.
    """
    unsure = max(torch.finfo(parts.dtype).eps, 1e-4)  # products summed in float32 leave 1e-5
    parts, mixed = parts.float(), mixed.float()
    gram = torch.einsum("kbqd,lbqd->bqkl", parts, parts)
    right = torch.einsum("kbqd,bqd->bqk", parts, mixed)
    # on the CPU, because not every device has float64; K x K numbers per position
    gram, right = gram.cpu().double(), right.cpu().double()
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)
    ridge = (1e-9 * size + torch.finfo(torch.float32).tiny)[..., None, None]
    solved = torch.linalg.solve(gram + ridge * torch.eye(len(parts), dtype=gram.dtype), right)
    weights = solved.permute(2, 0, 1).to(parts)
    rest = mixed - torch.einsum("kbq,kbqd->bqd", weights, parts)
    if not float(rest.norm()) <= _MIXED * float(mixed.norm()):
        return None
    return torch.where(weights > unsure, weights, 0.0)
