"""Where the model would look for words that are not in the prompt, while it attends to the prompt alone.

A layer makes a key k' of any word's encoding, as it makes the keys k of the prompt. How much the picture's queries q
agree with it is a map of that word (OVAM: Marcos-Manchón et al. 2024), read in one of two ways:

softmax: the word stands beside the prompt for once, P' = e^(q k') / (sum_t e^(q k_t) + e^(q k')). This is a share of
attention like that of the prompt's words. One word never takes a share from another that is looked for.
scores: q k' itself (as published). No token of the prompt matters, not even begin-of-text; only differences between
places mean anything.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .heads import by_head, joined, width
from .probabilities import SUMMED_AT_ONCE, masked_scores, scaled_keys

READINGS = SOFTMAX, SCORES = ("softmax", "scores")


def appended_attention(
    q: Tensor,
    k: Tensor,
    heads: int,
    added: Tensor,
    counts: Sequence[int],
    *,
    words: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Tensor:
    """Attention to each word if its keys came after those of the prompt, without the other words, summed over heads.

    result[s,b,q] = sum_h Z_s / (Z + Z_s), Z_s = sum_{t in s} e^{q k'_t scale}, Z = sum_t e^{q k_t scale + mask_t}.
    q: [B,Q,H*d] or [B,H,Q,d]. k: the prompt's keys [B,T,H*d] or [B,H,T,d]. added: keys k' [N,H*d] of all words, one
    word after the other; counts: how many each word has. words: [B,T], 1 at the prompt's own words; Z is then of these
    alone. mask, scale: see `probabilities`. Returns float32 [S,B,Q].
    """
    b, queries, d = len(q), q.shape[-2], width(q, heads)
    positions = by_head(q, d)
    keys, own = scaled_keys(k, d, scale), scaled_keys(added.unsqueeze(0), d, scale)
    others = None if words is None else (words == 0)[:, None, None]
    out = torch.empty((len(counts), b, queries), dtype=torch.float32, device=q.device)
    step = max(1, SUMMED_AT_ONCE // (b * heads * (keys.shape[-1] + own.shape[-1])))
    for start in range(0, queries, step):
        rows = slice(start, start + step)
        scores = masked_scores(positions[:, :, rows], keys, mask, rows)
        if others is not None:
            scores = scores.masked_fill(others, -torch.inf)
        prompt = scores.logsumexp(dim=-1)
        of_words = (positions[:, :, rows].float() @ own).split(list(counts), dim=-1)
        shares = [torch.sigmoid(scores.logsumexp(dim=-1) - prompt).sum(dim=1) for scores in of_words]
        out[:, :, rows] = torch.stack(shares)
    return out


def score_maps(q: Tensor, keys: Tensor, heads: int, *, scale: float | None = None) -> Tensor:
    """Scores of each word, summed over the heads and above their smallest value: float32 [S,B,Q].

    result[s,b,q] = sum_h q k'_s scale - min_q. q: [B,Q,H*d] or [B,H,Q,d]. keys: [B or 1,S,H*d], of each word the mean
    of its tokens' keys. scale: d^-1/2 unless given.
    """
    scale = width(q, heads) ** -0.5 if scale is None else scale
    scores = (keys.float() * scale) @ joined(q, heads).float().transpose(1, 2)
    return (scores - scores.amin(dim=-1, keepdim=True)).transpose(0, 1)
