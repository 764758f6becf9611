"""Where words look: cross-attention probabilities of their tokens, for those tokens only."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# Largest number of float32 scores computed at once: 4 MiB.
_CHUNK_ELEMENTS = 1024 * 1024


def token_attention(
    q: Tensor,
    k: Tensor,
    heads: int,
    columns: Tensor,
    *,
    words: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention that every query position pays to each subject, summed over the subject's tokens and over the heads.

    P = softmax(q k^T * scale + mask) over all T keys; result[s,b,q] = sum_h sum_t P[b,h,q,t] columns[b,t,s].
    The scores are computed in float32 and in chunks of query positions; of P only the columns asked for are kept.

    q: [B,Q,H*d]. k: [B,T,H*d]. heads: H. columns: [B,T,S], 1 where token t belongs to subject s.
    words: [B,T], 1 at the prompt's real words; each query's probabilities are then renormalised over them, per head
    (without it begin-of-text and padding keep their share). mask: added to the scores (bool: True is kept),
    broadcastable to [B,H,Q,T]. scale: d^-1/2 unless given. Returns float32 [S,B,Q].
    """
    b, queries, inner = q.shape
    tokens, d = k.shape[1], inner // heads
    scale = d**-0.5 if scale is None else scale
    q = q.reshape(b, queries, heads, d).transpose(1, 2)
    keys = k.reshape(b, tokens, heads, d).permute(0, 2, 3, 1).float() * scale
    sets = columns if words is None else torch.cat([columns, words.unsqueeze(-1)], dim=-1)
    sets = sets.to(device=q.device, dtype=torch.float32).unsqueeze(1)
    out = torch.empty((columns.shape[-1], b, queries), dtype=torch.float32, device=q.device)
    step = max(1, _CHUNK_ELEMENTS // (b * heads * tokens))
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        scores = q[:, :, rows].float() @ keys
        if mask is not None:
            scores = _masked(scores, mask, rows)
        shares = torch.softmax(scores, dim=-1) @ sets
        if words is not None:
            shares = shares[..., :-1] / shares[..., -1:].clamp_min(torch.finfo(torch.float32).tiny)
        out[:, :, rows] = shares.sum(dim=1).permute(2, 0, 1)
    return out


def _masked(scores: Tensor, mask: Tensor, rows: slice) -> Tensor:
    """Scores [B,H,q,T] with an attention mask ([Q,T], [B,Q,T] or [B,H,Q,T]; Q may be 1) of these query rows applied."""
    if mask.ndim == 3:
        mask = mask.unsqueeze(1)
    if mask.shape[-2] > 1:
        mask = mask[..., rows, :]
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask.float()


def token_columns(token_sets: Sequence[Sequence[int]], length: int, prompt_length: int) -> Tensor:
    """Membership matrix of the token sets in a context of `length` tokens: float32 [length, S] of zeros and ones.

    A host repeats a context of `prompt_length` tokens to match a longer one; the repeated positions belong to the
    subject too, so that their probabilities add up. Raises ValueError when a position lies outside the prompt or
    `length` is no multiple.
    """
    if length % prompt_length:
        raise ValueError(f"a context of {length} tokens is not a repetition of the prompt's {prompt_length} tokens")
    columns = torch.zeros((prompt_length, len(token_sets)))
    for s, tokens in enumerate(token_sets):
        outside = [t for t in tokens if not 0 <= t < prompt_length]
        if outside:
            raise ValueError(
                f"token positions {outside} lie outside the conditioning's {prompt_length} tokens: the subjects were "
                f"parsed "
                "from another prompt than the one that is sampled; connect both to the same text"
            )
        columns[list(tokens), s] = 1.0
    return columns.repeat(length // prompt_length, 1)
