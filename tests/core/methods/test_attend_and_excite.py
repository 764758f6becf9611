"""Attend-and-Excite's loss. `tests/host/test_attend_and_excite_reference.py` compares it with diffusers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from explainable_latents.nodes.core.methods.attend_and_excite import (
    AttendAndExcite,
    presence,
    second_softmax,
    together,
    word_maps,
)
from explainable_latents.nodes.core.methods.guidance import GuidedTokens, Part


def attention(*shape: int, seed: int = 0) -> Tensor:
    """Random probabilities over the last axis, as peaked as those of a model."""
    return torch.softmax(3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def whole(grid: tuple[int, int]) -> Part:
    return Part(grid, (0, 0), grid)


def test_a_word_of_several_tokens_is_its_last_one_or_the_mean_of_all():
    maps, one = attention(1, 8, 8, 12), GuidedTokens(((2, 3, 4),), tuple(range(12)))
    last = word_maps(maps, GuidedTokens(((4,),), one.compared), "last token")
    assert torch.equal(word_maps(maps, one, "last token"), last)
    each = torch.stack([word_maps(maps, GuidedTokens(((i,),), one.compared), "last token") for i in (2, 3, 4)])
    torch.testing.assert_close(word_maps(maps, one, "mean of tokens"), each.mean(0), atol=1e-6, rtol=0)


def test_tokens_that_are_not_compared_do_not_matter():
    maps = attention(2, 4, 4, 9)
    other = maps.clone()
    other[..., [0, 8]] = 0.9
    chosen = GuidedTokens(((2,), (5,)), (1, 2, 3, 5))
    assert torch.equal(word_maps(maps, chosen, "last token"), word_maps(other, chosen, "last token"))
    assert second_softmax(maps, chosen.compared).shape == (2, 4, 4, 4)


def test_a_words_loss_ends_at_zero_and_a_pictures_is_its_worst_words():
    maps = torch.zeros(2, 3, 4, 5)
    maps[0, :, 1, 1], maps[1, 0, 0, 0], maps[1, 2] = 1.0, 0.25, 1.5
    losses = presence(maps)
    assert losses.tolist() == [[0.0, 0.0, 0.0], [0.75, 1.0, 0.0]]
    assert AttendAndExcite().of_picture(losses).tolist() == [0.75, 1.0, 0.0]


def test_heads_and_layers_are_averaged_on_the_finest_grid():
    fine, coarse = attention(1, 3, 8, 6, 5), attention(1, 2, 4, 3, 5, seed=1)
    assert torch.equal(together([fine]), fine.mean(1))
    both = together([coarse, fine, fine])
    enlarged = torch.nn.functional.interpolate(coarse.mean(1).permute(0, 3, 1, 2), size=(8, 6), mode="bilinear")
    expected = (enlarged.permute(0, 2, 3, 1) + 2 * fine.mean(1)) / 3
    torch.testing.assert_close(both, expected, atol=1e-6, rtol=0)


def test_the_layers_of_sd_15_and_of_sdxl():
    fine = dict.fromkeys(["input.1.0", "input.2.0"], 1) | dict.fromkeys(["input.4.0", "input.5.0"], 2)
    sd15 = {**fine, "input.7.0": 4, "input.8.0": 4, "middle.0.0": 8, "output.3.0": 4, "output.5.0": 4, "output.8.0": 2}
    assert AttendAndExcite().layers(sd15) == ("input.7.0", "input.8.0", "output.3.0", "output.5.0")
    assert AttendAndExcite().layers({"input.4.0": 2, "input.7.9": 4, "middle.0.9": 4}) == ("input.7.9", "middle.0.9")
    # a network that has none of these: the next finer ones, else the finest
    assert AttendAndExcite().layers({"input.1.0": 1, "input.3.0": 2, "middle.0.0": 2}) == ("input.3.0", "middle.0.0")
    assert AttendAndExcite().layers({"middle.0.0": 8, "input.9.0": 16}) == ("middle.0.0",)


@pytest.mark.parametrize("grid", [(1, 1), (1, 7), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_and_odd_grids(grid, dtype):
    maps = attention(2, 1, *grid, 5).to(dtype).requires_grad_()
    found = AttendAndExcite().of_words([maps], GuidedTokens(((1,), (2, 3)), (0, 1, 2, 3)), whole(grid))
    assert (found.losses.shape, found.maps.shape, found.losses.dtype) == ((2, 2), (2, 2, *grid), dtype)
    assert torch.equal(found.remaining, found.losses.amax(0))
    (gradient,) = torch.autograd.grad(found.losses.sum(), maps)
    assert gradient.any()


def test_what_is_not_finite_in_one_picture_does_not_reach_the_others():
    maps = attention(2, 1, 4, 4, 5)
    maps[0, 0, 0, 0] = torch.nan
    leaf = maps.requires_grad_()
    loss = AttendAndExcite()
    found = loss.of_words([leaf], GuidedTokens(((1,), (2,)), (0, 1, 2)), whole((4, 4)))
    total = loss.of_picture(found.losses)
    assert total.isnan().tolist() == [True, False]
    (gradient,) = torch.autograd.grad(total.sum(), leaf)
    assert gradient[1].isfinite().all()
    assert gradient[1].any()


@pytest.mark.parametrize("wrong", [{"tokens": "first"}, {"compared": "nothing"}])
def test_wrong_choices_are_refused(wrong):
    with pytest.raises(ValueError, match="is not one of"):
        AttendAndExcite(**wrong)
