"""Plug-and-Play: the layout of a guidance picture under another prompt (Tumanyan et al. 2023).

While a source (the guidance picture) and a target are made side by side, two things of the source replace the target's,
each for the first part of the steps and for all conditionings:

  self-attention   where each place looks: (q_t, k_t) <- (q_s, k_s), of which the target's own values are averaged
  features         of one residual block: the output of its last convolution, before the block's skip is added

Both begin in the second block of the lowest level of the decoder that has attention (output.4 of SD 1.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from .prompt_to_prompt import Window


@dataclass(frozen=True)
class PlugAndPlay:
    """When the source's self-attention and its features replace the target's: published to 0.5 and to 0.8."""

    attention: Window
    features: Window


def with_source_features(features: Tensor, rows: Sequence[tuple[slice, slice]]) -> Tensor:
    """Features [R,...] in which the rows of each target are those of its source. rows: (source, target) each."""
    out = features.clone()
    for source, target in rows:
        out[target] = features[source]
    return out
