"""Mask from Attention over several steps: the last call before the step, or all calls up to it added up."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.attention.observer import observe
from explainable_latents.nodes.host.tokens import tokenize
from tests.host.toy_sampling import KEEP, PROMPT, latent, masked_run

STEPS = 5


def first_steps(toy, count: int, how: str) -> torch.Tensor:
    """The subject's map over the first `count` steps of the stock run, stopped there."""
    import nodes

    model = toy.model.clone()
    capture = observe(model, parse(PROMPT, tokenize(toy.clip, PROMPT), "").with_role("subject"))
    *settings, _ = toy.settings(latent(), "euler", scheduler="normal", steps=STEPS)
    (made,) = nodes.common_ksampler(model, *settings, start_step=0, last_step=count)
    return capture.saliency(made["samples"], "all", how).maps


@pytest.mark.parametrize(("calls", "how"), [("last call", "last"), ("cumulative", "sum")])
def test_the_maps_up_to_the_manipulated_step(toy, calls, how):
    """Steps 1 and 3 change nothing, so that the maps are those of the stock run: equal but for rounding."""
    masking = replace(toy.attention(), calls=calls)
    settings = toy.settings(latent(), "euler", scheduler="normal", steps=STEPS, denoise=1.0)
    *_, saliency = masked_run(toy.model, settings, masking, latent(), "0, 1, 3", KEEP, KEEP)
    assert saliency.labels == ("dog, step 0", "dog, step 1", "dog, step 3")
    expected = [first_steps(toy, count, how) for count in (1, 1, 3)]
    for found, wanted in zip(saliency.maps, expected, strict=True):
        assert torch.allclose(found, wanted[0], rtol=1e-5, atol=0)
    assert not torch.allclose(saliency.maps[2], first_steps(toy, 3, "mean")[0], rtol=1e-4, atol=0)


def test_another_word_is_refused(toy):
    with pytest.raises(ValueError, match="over_steps 'all' is not one of: last call, cumulative"):
        replace(toy.attention(), calls="all")
