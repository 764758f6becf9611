"""Where two prompts disagree about a noised picture: the map of DiffEdit (Couairon et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

# The rule of the authors' code as a factor of the map's mean: clamped at 3 means, divided by that, and above a half.
PUBLISHED_FACTOR = 1.5


def prompt_difference(pairs: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """G = the mean over noises and channels of |d(x,σ,c_t) - d(x,σ,c_s)|, float32 [B,h,w].

    pairs: for each noise the slopes d (see `inversion`) of both prompts [B,C,h,w]. A larger guidance scale, which both
    prompts would have, only multiplies the map. Equal slopes give zeros bit for bit. Raises ValueError without a pair.
    """
    differences = [(target.float() - source.float()).abs().mean(1) for target, source in pairs]
    if not differences:
        raise ValueError("noises 0 is too few: at least one noise is needed")
    return torch.stack(differences).mean(0)
