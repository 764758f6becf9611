"""Abs-Grad-SAM of transformers: exact, in a number of passes that does not grow with the image.

Behind the last attention to the text a transformer treats every token of the picture by itself, and of each it makes
one patch of the prediction, K = C ph pw numbers. So the Jacobian with respect to the probabilities P at token q is 0
but for the patch of q, and one backward pass that is seeded with the same number of every patch gives all tokens at
once: K passes instead of K times the number of tokens.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..choices import one_of
from .definition import POLARITIES, Progress, WordAttention, polarised


def as_patches(prediction: Tensor, patch: tuple[int, int]) -> Tensor:
    """The patches [B,Q,K] of a prediction [B,C,h,w] or [B,C,t,h,w], in the order of tokens, (t h w), and (C ph pw).

    patch: (ph, pw). What a last patch has beyond the prediction is 0.
    """
    (ph, pw), (height, width) = patch, prediction.shape[-2:]
    frames = prediction.unsqueeze(2) if prediction.ndim == 4 else prediction
    padded = F.pad(frames, (0, -width % pw, 0, -height % ph))
    cut = padded.unflatten(4, (-1, pw)).unflatten(3, (-1, ph))  # [B,C,t,h,ph,w,pw]
    return cut.permute(0, 2, 3, 5, 1, 4, 6).flatten(4).flatten(1, 3)


def from_patches(patches: Tensor, patch: tuple[int, int], shape: tuple[int, ...]) -> Tensor:
    """The inverse of `as_patches`, of [S,B,Q,K]: [S,B*t,C,h,w]. shape: of the prediction."""
    (ph, pw), (height, width) = patch, shape[-2:]
    rows, columns = -(-height // ph), -(-width // pw)
    cut = patches.unflatten(3, (shape[1], ph, pw)).unflatten(2, (-1, rows, columns))  # [S,B,t,h,w,C,ph,pw]
    whole = cut.permute(0, 1, 2, 5, 3, 6, 4, 7).flatten(6).flatten(4, 5)
    return whole[..., :height, :width].flatten(1, 2)


def is_local(words: WordAttention, patches: Tensor) -> bool:
    """Whether every patch [B,Q,K] depends on `words.change` at its own token only; one backward pass.

    Random numbers seed the patches of a random half of the tokens: at the others the gradient has to be exactly 0.
    """
    if patches.shape[1] != words.change.shape[2]:
        return False
    generator = torch.Generator().manual_seed(0)
    seeded = (torch.rand(patches.shape[1], generator=generator) < 0.5).to(patches.device)
    seed = torch.randn(patches.shape[1:], generator=generator).to(patches) * seeded.unsqueeze(-1)
    (gradient,) = words.loss_scale.gradients(patches, [words.change], seed.expand_as(patches), terms=patches[0].numel())
    return not gradient[:, :, ~seeded].any()


def patchwise(words: WordAttention, patches: Tensor, polarity: str, progress: Progress | None = None) -> Tensor:
    """The scores [S,B,Q,K] that `definition.brute_force` finds, where the patches are `is_local`: K backward passes.

    patches: [B,Q,K] of the prediction, recorded as a function of `words.change`. Raises ValueError for an unknown
    polarity.
    """
    one_of("polarity", polarity, POLARITIES)
    count, found = patches.shape[-1], []
    for k in range(count):
        each = patches[..., k]
        (gradient,) = words.loss_scale.gradients(each, [words.change], terms=each[0].numel())
        weighted = (words.probabilities * polarised(gradient, polarity)).sum(1)
        found.append(words.per_subject(weighted.permute(2, 0, 1)))
        if progress is not None:
            progress(k + 1, count)
    return torch.stack(found, dim=-1)
