"""DiffEdit's map against the formula of its code, written down."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.maps.thresholds import above_threshold
from explainable_latents.nodes.core.methods.prompt_difference import PUBLISHED_FACTOR, prompt_difference


def pairs(noises: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """They differ more to the right."""
    generator, more = torch.Generator().manual_seed(0), torch.linspace(0, 1, 8) ** 2
    return [tuple(more * torch.randn(3, 4, 6, 8, generator=generator) for _ in range(2)) for _ in range(noises)]


def test_the_map_and_its_published_rule():
    """The code: the mean over noises and channels, clamped at three means, divided by that; inside is above a half."""
    found = pairs(5)
    maps = prompt_difference(found)
    expected = sum((target - source).abs().mean(1) for target, source in found) / 5
    torch.testing.assert_close(maps, expected)
    inside = above_threshold(maps[None], "mean × factor", PUBLISHED_FACTOR, ("difference",))[0]
    for each, mask in zip(maps, inside, strict=True):  # each picture by its own mean
        most = 3 * each.mean()
        assert torch.equal(mask, (each.clamp(max=most) / most) > 0.5)
        assert 0 < mask.sum() < mask.numel()


def test_the_same_prompt_twice_has_no_difference():
    assert torch.equal(prompt_difference([(x, x) for x, _ in pairs(3)]), torch.zeros(3, 6, 8))


def test_without_a_noise_there_is_no_map():
    with pytest.raises(ValueError, match="at least one noise is needed"):
        prompt_difference([])
