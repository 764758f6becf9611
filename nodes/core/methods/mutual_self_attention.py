"""MasaCtrl: a picture in another pose or action, made of the source's own texture (Cao et al. 2023).

While a source and a target picture are made side by side, the target's self-attention in the second half of the UNet
asks with its own queries, but finds the source's keys and values: attention(q_t, k_s, v_s). It begins after a few
steps, when the target has a layout of its own, and holds for all conditionings, the negative prompt's too.

With masks of the subject, what is inside the target's mask looks only inside the source's, and outside only outside:

    O = m_t∘attention(q_t, k_s[m_s], v_s[m_s]) + (1 - m_t)∘attention(q_t, k_s[1 - m_s], v_s[1 - m_s])
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from .prompt_to_prompt import Window

# Layers of the decoder that are at most so many times coarser than the latent: up to 32x32 of 64x64, as published.
COARSEST = 2


@dataclass(frozen=True)
class MutualSelfAttention:
    """When the source's keys and values are taken: published from 0.08 on (after 4 of 50 steps), to the end."""

    window: Window

    def acts(self, step: int, steps: int) -> bool:
        """Whether they are taken at `step` of a run of `steps`."""
        return self.window.includes(step, steps)


def on_grid(mask: Tensor, grid: tuple[int, int]) -> Tensor:
    """Whether the nearest place of a mask [B,h,w] is inside (above 0.5), for each place of a grid: bool [B,h'·w']."""
    return (F.interpolate(mask.unsqueeze(1).float(), size=grid, mode="nearest") > 0.5).flatten(1)


def matching_places(source: Tensor, target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Which queries look at which keys: those inside look inside, those outside look outside.

    source, target: bool [N], the two masks. Returns int64 places (queries, keys). Queries whose side is empty in the
    source are left out: they look everywhere. So are both sides where the source has one side alone.
    """
    sides = [(target == side, source == side) for side in (True, False)]
    return [
        (queries.nonzero()[:, 0], keys.nonzero()[:, 0])
        for queries, keys in sides
        if bool(queries.any()) and bool(keys.any()) and not bool(keys.all())
    ]
