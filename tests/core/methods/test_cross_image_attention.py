"""Attention of more contrast, against probabilities in float64, written as published; and the guidance along a run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from explainable_latents.nodes.core.methods.appearance import APPEARANCE, Schedule
from explainable_latents.nodes.core.methods.cross_image_attention import CrossImageAttention, contrasted_attention
from explainable_latents.nodes.core.methods.prompt_to_prompt import Window

HEADS, D = 2, 8
ALWAYS = Schedule(Window(), Window(), 0, Window(), 1.0)


def qkv(queries: int, keys: int, batch: int = 3, dtype=torch.float32) -> list[torch.Tensor]:
    """Scores of some size, so that probabilities differ."""
    generator = torch.Generator().manual_seed(queries + keys)
    each = [torch.randn(batch, n, HEADS * D, generator=generator) for n in (queries, keys, keys)]
    return [(each[0] * 2).to(dtype), each[1].to(dtype), each[2].to(dtype)]


def written(q, k, v, contrast: float, mask=0.0, scale: float = D**-0.5) -> torch.Tensor:
    """Each probability is moved away from the mean of its row, in float64."""
    q, k, v = (x.double().unflatten(-1, (HEADS, D)).transpose(1, 2) for x in (q, k, v))
    p = (q @ k.transpose(-1, -2) * scale + mask).softmax(-1)
    mean = p.mean(-1, keepdim=True)
    p = ((p - mean) * contrast + mean).clip(0, 1)
    return (p @ v).transpose(1, 2).flatten(-2)


@pytest.mark.parametrize(("queries", "keys"), [(15 * 9, 15 * 9), (35, 17)])
@pytest.mark.parametrize("contrast", [1.0, 1.67, 4.0])
def test_the_output_is_that_of_probabilities_written_down(queries, keys, contrast):
    q, k, v = qkv(queries, keys)
    found = contrasted_attention(q, k, v, heads=HEADS, contrast=contrast)
    torch.testing.assert_close(found.double(), written(q, k, v, contrast), rtol=1e-5, atol=1e-5)
    # rows are not normalised: with contrast the output is another one, not by rounding
    plain = written(q, k, v, 1.0)
    assert (contrast == 1) == bool((found.double() - plain).abs().max() < 1e-4)


def test_no_contrast_is_pytorchs_own_attention():
    q, k, v = qkv(20, 30)
    heads = (x.unflatten(-1, (HEADS, D)).transpose(1, 2) for x in (q, k, v))
    expected = torch.nn.functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(-2)
    torch.testing.assert_close(contrasted_attention(q, k, v, heads=HEADS, contrast=1.0), expected)


def test_masks_scales_and_queries_of_which_a_few_are_computed_at_once():
    """More than 16 million scores are cut: 2 rows, 2 heads, 2100 keys."""
    q, k, v = qkv(2100, 2100, 2)
    mask = torch.zeros(2100).index_fill(0, torch.arange(0, 2100, 2), -torch.inf)
    found = contrasted_attention(q, k, v, mask.expand(2100, -1), heads=HEADS, contrast=1.67, scale=0.2)
    torch.testing.assert_close(found.double(), written(q, k, v, 1.67, mask, 0.2), rtol=1e-4, atol=1e-5)


def test_heads_apart_and_shared_keys_give_the_same_in_the_form_of_the_queries():
    q, k, v = qkv(12, 12)
    expected = contrasted_attention(q, k, v, heads=HEADS, contrast=2.0)
    apart = [x.unflatten(-1, (HEADS, D)).transpose(1, 2) for x in (q, k, v)]
    found = contrasted_attention(*apart, heads=HEADS, contrast=2.0)
    assert torch.equal(found.transpose(1, 2).flatten(-2), expected)
    one = [x[:, :1] for x in apart[1:]]
    shared = contrasted_attention(apart[0], *one, heads=HEADS, contrast=2.0)
    torch.testing.assert_close(shared[:, 1:], contrasted_attention(apart[0][:, 1:], *one, heads=1, contrast=2.0))


def test_the_type_of_the_queries_is_kept():
    q, k, v = qkv(9, 9, dtype=torch.bfloat16)
    found = contrasted_attention(q, k, v, heads=HEADS, contrast=1.67)
    assert found.dtype == torch.bfloat16
    # of the result alone: inside it is float32
    torch.testing.assert_close(found.double(), written(q, k, v, 1.67), rtol=2**-8, atol=1e-3)


@pytest.mark.parametrize("guidance", [3.5, 1.5, 1.0])
def test_the_guidance_falls_to_half_but_not_below_1(guidance):
    """As numpy's linspace has it, of which the authors take it."""
    method = CrossImageAttention(ALWAYS, guidance, 1.67)
    expected = np.linspace(guidance, max(guidance / 2, 1.0), 68)
    np.testing.assert_allclose([method.led_on(step, 68) for step in range(68)], expected)
    assert method.led_on(0, 1) == guidance


def test_a_guidance_of_0_is_off():
    assert CrossImageAttention(ALWAYS, 0.0, 1.67).taken_from(0, 1, 1) is None
    assert CrossImageAttention(ALWAYS, 0.5, 1.67).taken_from(0, 1, 1) == APPEARANCE


@pytest.mark.parametrize(
    ("numbers", "message"), [((3.5, 0.5), "contrast is 0.5, but it must be 1"), ((-1.0, 1.67), "guidance is -1")]
)
def test_mistakes_are_named(numbers, message):
    with pytest.raises(ValueError, match=message):
        CrossImageAttention(ALWAYS, *numbers)
