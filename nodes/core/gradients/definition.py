"""Abs-Grad-SAM: how much each element of a prediction depends on the attention to a word (arXiv 2408.16232).

    S_s[c,i,j] = sum_h sum_q sum_{t in T_s} P[h,q,t] |d z[c,i,j] / d P[h,q,t]|

P: probabilities of one cross-attention layer. z: the model's denoised prediction. This module holds the definition and
the solver that follows it literally, one backward pass per element of z; `structured` gets the same numbers from far
fewer where the model's structure allows it. The aggregated variant differentiates the sum of z with respect to the
probabilities of all layers, in a single pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from ..attention.aggregate import resize
from ..choices import one_of
from .loss_scale import LossScale

# |g| (Abs-Grad-SAM) or max(g, 0) (Grad-SAM) of a gradient g.
POLARITIES = ("absolute", "positive")

ABS_GRAD_SAM, AGGREGATED = DEFINITIONS = ("Abs-Grad-SAM", "aggregated")

STRUCTURED, EXACT = SOLVERS = ("structured", "exact")

# Called with (units done, units in all) between pieces of work; it may raise to cancel.
Progress = Callable[[int, int], None]


def check_choices(polarity: str, solver: str, definition: str) -> None:
    """Raise ValueError unless all choices are allowed."""
    one_of("polarity", polarity, POLARITIES)
    one_of("solver", solver, SOLVERS)
    one_of("definition", definition, DEFINITIONS)


@dataclass(frozen=True)
class WordAttention:
    """The words' cross-attention in one layer, as the variable with respect to which predictions are differentiated.

    probabilities: P at the words' tokens, float32 [B,H,Q,N]. change: zeros of the same shape that require grad; adding
    `change` to P is what a recorded prediction depends on. columns: [N,S], 1 where token n belongs to subject s.
    values: the tokens' value vectors, float32 [B,N,H*d]. loss_scale: takes all gradients with respect to `change`.
    Raises ValueError when the shapes contradict each other.
    """

    probabilities: Tensor
    change: Tensor
    columns: Tensor
    values: Tensor
    loss_scale: LossScale = field(default_factory=LossScale)

    def __post_init__(self) -> None:
        shapes = tuple(self.probabilities.shape), tuple(self.change.shape), tuple(self.columns.shape)
        if self.probabilities.ndim != 4 or shapes[0] != shapes[1] or shapes[0][-1] != shapes[2][0]:
            raise ValueError(f"probabilities and change are [B,H,Q,N] and columns [N,S], got {shapes}")

    def per_subject(self, per_token: Tensor) -> Tensor:
        """Add the tokens of each subject: [N,B,...] to [S,B,...]."""
        return torch.einsum("n...,ns->s...", per_token, self.columns)


def distinct_tokens(columns: Tensor) -> tuple[Tensor, Tensor]:
    """The positions [N] that belong to any subject, and the membership [N,S] of these alone.

    columns: membership [T,S] of all tokens of the context, as `probabilities.token_columns` gives it.
    """
    used = columns.any(dim=1).nonzero().squeeze(1)
    return used, columns[used].float()


def attention_change(change: Tensor, values: Tensor) -> Tensor:
    """What a change of probabilities [B,H,Q,N] adds to the attention's output: [B,Q,H*d]. values: [B,N,H*d]."""
    heads = change.shape[1]
    return (change @ values.unflatten(-1, (heads, -1)).transpose(1, 2)).transpose(1, 2).flatten(2)


def polarised(gradient: Tensor, polarity: str) -> Tensor:
    """The part of a gradient that counts. Raises ValueError for a polarity not in `POLARITIES`."""
    one_of("polarity", polarity, POLARITIES)
    return gradient.abs() if polarity == "absolute" else gradient.clamp_min(0)


def query_scores(words: WordAttention, gradient: Tensor, polarity: str) -> Tensor:
    """sum_h sum_{t in T_s} P |dZ/dP| at every query position: [S,B,Q]; Z a single number, `gradient` its [B,H,Q,N].

    See `aggregated`.
    """
    weighted = words.probabilities * polarised(gradient, polarity)
    return words.per_subject(weighted.sum(dim=1).permute(2, 0, 1))


def aggregated(
    words: Mapping[str, WordAttention],
    grids: Mapping[str, tuple[int, int]],
    prediction: Tensor,
    size: tuple[int, int],
    polarity: str,
) -> Tensor:
    """The `query_scores` of the sum of z, resized and added over the layers: [S,B,a,b], not normalised.

    words, grids: of each layer, its grid of query positions. prediction: z [B,C,a,b], recorded as a function of all the
    layers' `change`. size: (a, b).
    """
    loss_scale = next(iter(words.values())).loss_scale
    changes = [each.change for each in words.values()]
    gradients = loss_scale.gradients(prediction.sum(), changes, terms=prediction[0].numel())
    maps = [
        resize(query_scores(each, gradient, polarity).unflatten(-1, grids[layer]), size)
        for (layer, each), gradient in zip(words.items(), gradients, strict=True)
    ]
    return torch.stack(maps).sum(0)


def brute_force(
    words: WordAttention,
    prediction: Tensor,
    polarity: str,
    *,
    elements: Sequence[int] | None = None,
    batch: int = 1,
    progress: Progress | None = None,
) -> Tensor:
    """The definition itself: one backward pass per element of the prediction, `batch` of them at once.

    prediction: z [B,C,h,w], recorded as a function of `words.change`, each latent of the batch on its own rows; they
    share the passes. elements: only these of the C*h*w elements (flat indices), all by default.
    Returns float32 [S,B,C,h,w], or [S,B,len(elements)] when `elements` are given.
    """
    flat = prediction.flatten(1)
    wanted = torch.arange(flat.shape[1]) if elements is None else torch.as_tensor(elements)
    scores = flat.new_empty((words.change.shape[-1], flat.shape[0], len(wanted)), dtype=torch.float32)
    for start in range(0, len(wanted), batch):
        chosen = wanted[start : start + batch].to(flat.device)
        gradients = _gradients(words, flat, chosen, batch)
        weighted = words.probabilities * polarised(gradients, polarity)
        scores[:, :, start : start + len(chosen)] = weighted.sum(dim=(2, 3)).permute(2, 1, 0)
        if progress is not None:
            progress(min(start + batch, len(wanted)), len(wanted))
    result = words.per_subject(scores)
    return result if elements is not None else result.unflatten(-1, tuple(prediction.shape[1:]))


def _gradients(words: WordAttention, flat: Tensor, chosen: Tensor, batch: int) -> Tensor:
    """d flat[b,e] / d change[b] for the chosen elements e: [E,B,H,Q,N]."""
    if batch == 1:
        (gradient,) = words.loss_scale.gradients(flat[:, chosen].sum(), [words.change])
        return gradient.unsqueeze(0)
    seeds = torch.zeros((len(chosen), *flat.shape), dtype=flat.dtype, device=flat.device)
    seeds[torch.arange(len(chosen), device=flat.device), :, chosen] = 1
    (gradients,) = words.loss_scale.gradients(flat, [words.change], seeds, batched=True)
    return gradients
