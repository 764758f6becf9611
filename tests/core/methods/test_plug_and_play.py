"""Plug-and-Play's windows, and the exchange of features."""

from __future__ import annotations

import torch

from explainable_latents.nodes.core.methods.plug_and_play import PlugAndPlay, with_source_features
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window


def test_the_published_windows_are_25_and_40_of_50_steps():
    method = PlugAndPlay(Window(0, 0.5), Window(0, 0.8))
    assert sum(method.attention.includes(step, 50) for step in range(50)) == 25
    assert sum(method.features.includes(step, 50) for step in range(50)) == 40


def test_targets_get_their_sources_features_and_nothing_else_changes():
    features = torch.arange(12.0).view(6, 2)
    kept = features.clone()
    out = with_source_features(features, [(slice(0, 1), slice(1, 2)), (slice(2, 4), slice(4, 6))])
    assert torch.equal(out, kept[[0, 0, 2, 3, 2, 3]])
    assert torch.equal(features, kept)
