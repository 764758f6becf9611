"""Attend-and-Excite's loss, against the helpers of diffusers, which the Python of tests/core need not have."""

from __future__ import annotations

import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_attend_and_excite import (
    pipeline_stable_diffusion_attend_and_excite,
)

from explainable_latents.nodes.core.maps.filters import gaussian_smooth
from explainable_latents.nodes.core.methods.attend_and_excite import AttendAndExcite
from explainable_latents.nodes.core.methods.guidance import GuidedTokens, Part

THEIRS = pipeline_stable_diffusion_attend_and_excite
PIPELINE = THEIRS.StableDiffusionAttendAndExcitePipeline


@pytest.mark.parametrize("words", [(2,), (2, 5), (1, 3, 9)])
@pytest.mark.parametrize("seed", range(3))
def test_losses_are_those_of_diffusers(words, seed):
    """Same second softmax, smoothing, peaks and worst word: to rounding of float32."""
    scores = torch.randn(16, 16, 77, generator=torch.Generator().manual_seed(seed))
    maps = torch.softmax(3 * scores, dim=-1)  # as peaked as a model's
    peaks = PIPELINE._compute_max_attention_per_index(maps.clone(), list(words))  # noqa: SLF001  static helpers
    expected = PIPELINE._compute_loss(peaks)  # noqa: SLF001
    loss = AttendAndExcite()
    tokens = GuidedTokens(tuple((word - 1,) for word in words), tuple(range(75)))
    found = loss.of_words([maps[None, None, ..., 1:-1]], tokens, Part((16, 16), (0, 0), (16, 16)))
    torch.testing.assert_close(found.losses[:, 0], torch.stack([1 - peak for peak in peaks]), atol=1e-6, rtol=0)
    torch.testing.assert_close(found.maps.amax((-2, -1))[:, 0], torch.stack(peaks), atol=1e-6, rtol=0)
    torch.testing.assert_close(loss.of_picture(found.losses)[0], expected, atol=1e-6, rtol=0)


def test_the_kernel_is_that_of_diffusers():
    """Its named deviation of 0.5 is √0.5: 0.2119, 0.5761, 0.2119 along each side; edges are mirrored."""
    theirs = THEIRS.GaussianSmoothing(channels=1, kernel_size=3, sigma=0.5, dim=2)
    side = torch.tensor([0.2119, 0.5761, 0.2119])
    torch.testing.assert_close(theirs.weight[0, 0], side.outer(side), atol=1e-4, rtol=0)
    maps = torch.rand(1, 1, 6, 9, generator=torch.Generator().manual_seed(1))
    padded = torch.nn.functional.pad(maps, (1, 1, 1, 1), mode="reflect")
    torch.testing.assert_close(gaussian_smooth(maps, 0.5**0.5, 3, "reflect"), theirs(padded), atol=1e-6, rtol=0)
