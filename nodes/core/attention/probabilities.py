"""Where the model looks at words: attention probabilities, for the words' tokens only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .heads import by_head, width
from .log_sums import log_sums

# Most float32 scores computed at once: 4 MiB where they are summed straight away, 64 MiB where they are kept per head.
SUMMED_AT_ONCE = 1024 * 1024
KEPT_AT_ONCE = 16 * 1024 * 1024

# What the probability of a word is a share of: all that is attended to; the attention to the prompt's own words; the
# attention to all text, which is the same as the first where the picture attends to nothing else.
SHARES = ALL_TOKENS, PROMPT_WORDS, ALL_TEXT = ("all tokens", "prompt words", "all text")

# With more keys than this, a GPU computes at least so many query positions at once: fewer leave it idle.
MANY_KEYS, LEAST_POSITIONS = 1024, 64


def probabilities(
    q: Tensor, k: Tensor, heads: int, at_once: int, *, mask: Tensor | None = None, scale: float | None = None
) -> Iterator[tuple[slice, Tensor]]:
    """Yield P = softmax(q k^T * scale + mask) over all T keys, in float32, a few query positions at a time.

    q: [B,Q,H*d] or [B,H,Q,d], k: [B,T,H*d] or [B,H,T,d], see `heads`. heads: H. at_once: the most scores computed at
    once. mask: added to the scores (bool: True is kept), [Q,T], [B,Q,T] or broadcastable to [B,H,Q,T]. scale: d^-1/2
    unless given. Yields the query positions and their P [B,H,q,T], which the caller should let go of before it asks
    for the next.
    """
    q = by_head(q, width(q, heads))
    keys = scaled_keys(k, q.shape[-1], scale)
    step = positions_at_once(q, k, at_once)
    for start in range(0, q.shape[-2], step):
        rows = slice(start, start + step)
        yield rows, _softmax(q[:, :, rows], keys, mask, rows)


def positions_at_once(q: Tensor, k: Tensor, at_once: int) -> int:
    """At how many query positions of q [B,H,Q,d] scores are computed at once. at_once: the most scores."""
    step = max(1, at_once // (len(q) * q.shape[1] * k.shape[-2]))
    return max(step, LEAST_POSITIONS) if q.device.type != "cpu" and k.shape[-2] > MANY_KEYS else step


def scaled_keys(k: Tensor, d: int, scale: float | None = None) -> Tensor:
    """Keys of either form times the scale (d^-1/2 unless given), float32 [B,h,d,T]: q @ keys are the scores."""
    scale = d**-0.5 if scale is None else scale
    keys = by_head(k, d).transpose(-1, -2)
    # a copy in another precision is nobody else's
    return keys * scale if keys.dtype == torch.float32 else keys.float().mul_(scale)


def masked_scores(q: Tensor, keys: Tensor, mask: Tensor | None, rows: slice) -> Tensor:
    """Scores [B,H,q,T] of the queries q [B,H,q,d] at the positions `rows`. keys: see `scaled_keys`.

    mask: see `probabilities`, of all positions.
    """
    scores, mask = _products(q.float(), keys), mask_of_queries(mask, rows)
    if mask is None:
        return scores
    return scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask.float()


def mask_of_queries(mask: Tensor | None, rows: slice) -> Tensor | None:
    """The part of an attention mask ([Q,T], [B,Q,T] or [B,H,Q,T]; Q may be 1) that these query positions have."""
    if mask is None:
        return None
    if mask.ndim == 3:
        mask = mask.unsqueeze(1)
    return mask[..., rows, :] if mask.shape[-2] > 1 else mask


def _products(q: Tensor, keys: Tensor) -> Tensor:
    """q [B,H,q,d] @ keys [B,h,d,T]; where h is less than H, each serves H/h heads one after the other."""
    heads, of_keys = q.shape[1], keys.shape[1]
    if heads == of_keys:
        return q @ keys
    grouped = q.unflatten(1, (of_keys, -1)).flatten(2, 3) @ keys
    return grouped.unflatten(2, (heads // of_keys, -1)).flatten(1, 2)


def _softmax(q: Tensor, keys: Tensor, mask: Tensor | None, rows: slice) -> Tensor:
    return torch.softmax(masked_scores(q, keys, mask, rows), dim=-1)


def token_attention(
    q: Tensor,
    k: Tensor,
    heads: int,
    columns: Tensor,
    *,
    words: Tensor | None = None,
    mask: Tensor | None = None,
    scale: float | None = None,
    text: slice | None = None,
) -> Tensor:
    """Attention that every query position pays to each subject, summed over the subject's tokens and over the heads.

    result[s,b,q] = sum_h sum_t P[b,h,q,t] columns[b,t,s]. q, k, heads, mask, scale: see `probabilities`.
    columns: [B,T,S], 1 where token t belongs to subject s. words: [B,T], 1 at the tokens over which each query's
    probabilities are renormalised, per head: at the prompt's own words, say (without it begin-of-text, padding and
    whatever else is attended to keep their share). text: where the T tokens are among the keys; None if there are no
    others. Returns float32 [S,B,Q].
    """
    how = {"mask": mask, "scale": scale}
    if text is not None and k.shape[-2] != columns.shape[1]:
        if words is None:
            return _share_of_all(q, k, heads, columns, text, **how)
        # what goes to other keys cancels out
        k = k[..., text, :]
        how["mask"] = None if mask is None else mask[..., text]
    sets = columns if words is None else torch.cat([columns, words.unsqueeze(-1)], dim=-1)
    sets = sets.to(device=q.device, dtype=torch.float32).unsqueeze(1)
    out = torch.empty((columns.shape[-1], len(q), q.shape[-2]), dtype=torch.float32, device=q.device)
    for rows, p in probabilities(q, k, heads, SUMMED_AT_ONCE, **how):
        shares = p @ sets
        if words is not None:
            shares = shares[..., :-1] / shares[..., -1:].clamp_min(torch.finfo(torch.float32).tiny)
        out[:, :, rows] = shares.sum(dim=1).permute(2, 0, 1)
        del p  # else it would take memory beside the next
    return out


def _share_of_all(
    q: Tensor, k: Tensor, heads: int, columns: Tensor, text: slice, *, mask: Tensor | None, scale: float | None
) -> Tensor:
    """See `token_attention`: shares of the attention to all keys, of which the text is a part."""
    sums = log_sums(q, k, heads, mask, scale)
    if sums is None:
        sets = columns.new_zeros((len(columns), k.shape[-2], columns.shape[-1]), device=q.device)
        sets[:, text] = columns.to(sets)
        return token_attention(q, k, heads, sets, mask=mask, scale=scale)
    columns, d = columns.to(device=q.device, dtype=torch.float32), width(q, heads)
    used = columns.any(dim=-1).any(dim=0).nonzero()[:, 0]
    sets = columns[:, used].unsqueeze(1)
    q, keys = by_head(q, d), scaled_keys(k[..., text, :][..., used, :], d, scale)
    step = max(1, SUMMED_AT_ONCE // (len(q) * heads * max(1, len(used))))
    parts = []
    for start in range(0, q.shape[-2], step):
        rows = slice(start, start + step)
        p = torch.exp(masked_scores(q[:, :, rows], keys, None, rows) - sums[:, :, rows].unsqueeze(-1))
        parts.append((p @ sets).sum(dim=1).permute(2, 0, 1))
    return torch.cat(parts, dim=-1)


def token_probabilities(
    q: Tensor, k: Tensor, heads: int, tokens: Tensor, *, mask: Tensor | None = None, scale: float | None = None
) -> Tensor:
    """P of every head at `tokens` only: float32 [B,H,Q,N]. tokens: positions [N]. The rest: see `probabilities`."""
    out = torch.empty((len(q), heads, q.shape[-2], len(tokens)), dtype=torch.float32, device=q.device)
    for rows, p in probabilities(q, k, heads, KEPT_AT_ONCE, mask=mask, scale=scale):
        out[:, :, rows] = p[..., tokens]
        del p  # else it would take memory beside the next
    return out


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
                "parsed from another prompt than the one that is sampled; connect both to the same text"
            )
        columns[list(tokens), s] = 1.0
    return columns.repeat(length // prompt_length, 1)
