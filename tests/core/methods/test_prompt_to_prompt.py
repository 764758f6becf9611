"""Prompt-to-Prompt without probabilities against the probabilities written down, in float64."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from explainable_latents.nodes.core.methods.prompt_to_prompt import (
    PromptToPrompt,
    Window,
    own_values,
    source_values,
    value_weights,
)
from explainable_latents.nodes.core.words.alignment import Alignment


def attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v)


def plain(length: int) -> Alignment:
    return Alignment((length, length), tuple((i, i, 1.0) for i in range(length)))


@pytest.mark.parametrize(("copies", "others"), [(1, 1), (3, 2)])
def test_two_attentions_are_the_edited_probabilities_times_the_targets_values(copies, others):
    """Contexts of 4 and 6 tokens, also where the host repeats both to 12."""
    generator = torch.Generator().manual_seed(0)
    before, after = (4, 6) if copies > 1 else (6, 6)

    def random(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q_s, q_t = random(2, 2, 9, 8)
    k_s, k_t, v_t = random(2, before, 8), random(2, after, 8), random(2, after, 8)
    shares = ((0, 0, 1.0), (1, 2, 0.5), (1, 3, 0.5), (2, 1, 1.0), (3, 1, 1.0), (3, 5, 1.0))
    alignment = Alignment((before, after), shares, frozenset({4}))
    alpha = torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0])
    e = torch.tensor([1.0, 2.0, 1.0, -0.5, 3.0, 1.0])

    scale = 8**-0.5
    p_s, p_t = ((q @ k.transpose(1, 2) * scale).softmax(-1) for q, k in ((q_s, k_s), (q_t, k_t)))
    hat = torch.zeros_like(p_t)
    for i, j, share in shares:
        hat[..., j] += share * p_s[..., i]
    a = torch.tensor([1.0, 1, 1, 1, 0, 1])
    edited = alpha * e * (a * hat + (1 - a) * p_t) + (1 - alpha) * p_t
    expected = edited @ v_t

    moved, own = value_weights(alignment, alpha, e)
    long_s, long_t, values = k_s.repeat(1, copies, 1), k_t.repeat(1, others, 1), v_t.repeat(1, others, 1)
    found = attention(q_s, long_s, source_values(values, moved, long_s.shape[1]))
    found = found + attention(q_t, long_t, own_values(values, own))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)


def test_equal_prompts_leave_the_values_as_they_are_bit_for_bit():
    values = torch.randn(1, 5, 3)
    moved, own = PromptToPrompt(plain(5), Window(0, 1)).terms(0, 10)
    assert torch.equal(source_values(values, moved, 5), values)
    assert not own.any()


def test_windows_count_the_steps_as_published():
    """0.8 of 50 steps are the first 40 for words (of 51 parts), 0.4 the first 20 for self-attention."""
    method = PromptToPrompt(plain(4), Window(0, 0.8), {2: Window(0.2, 0.4)}, {}, Window(0, 0.4))
    assert [step for step in range(50) if method.replaced(step, 50)[1]] == list(range(40))
    assert [step for step in range(50) if method.replaced(step, 50)[2]] == list(range(10, 20))
    assert [step for step in range(50) if method.replaces_self_attention(step, 50)] == list(range(20))
    assert method.terms(40, 50) is None
    assert all(Window().includes(step, 51) for step in range(50))
    assert not any(Window(0, 0).includes(step, 51) for step in range(50))


@pytest.mark.parametrize(("start", "end"), [(-0.1, 0.5), (0.6, 0.5), (0, 1.1)])
def test_a_window_outside_the_run_is_refused(start, end):
    with pytest.raises(ValueError, match="0 <= start <= end <= 1"):
        Window(start, end)


def test_a_weight_counts_where_a_word_is_replaced():
    method = PromptToPrompt(plain(3), Window(0, 0.5), {2: Window(0, 0.0)}, {1: -2.0, 2: 5.0})
    moved, own = method.terms(0, 10)
    assert torch.equal(moved, torch.diag(torch.tensor([1.0, -2.0, 0.0])))
    assert own.tolist() == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("coarser", "latent", "coarse"),
    [(4, (64, 64), [(16, 16), (8, 8)]), (2, (64, 64), [(32, 32), (16, 16), (8, 8)]), (4, (67, 45), [(17, 12), (9, 6)])],
)
def test_self_attention_is_replaced_in_coarse_layers(coarser, latent, coarse):
    """The grids of SD 1.5; an odd side is halved upwards."""
    method = PromptToPrompt(plain(3), coarser=coarser)
    grids = [tuple(-(-side // scale) for side in latent) for scale in (1, 2, 4, 8)]
    assert [grid for grid in grids if method.is_coarse(grid, latent)] == coarse
