"""Values of a prompt and of its copies with phrases encoded alone, against the paper's mean of attentions."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.structured_diffusion import PhraseAlone, told_context


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


PHRASES = [
    PhraseAlone("red car", (2, 3), drawn(2, 6, seed=1)),
    PhraseAlone("white sheep", (6, 7), drawn(2, 6, seed=2)),
    PhraseAlone("car and a white sheep", (3, 4, 5, 6, 7), drawn(5, 6, seed=3)),
]


def test_one_attention_to_the_mean_is_the_mean_of_the_attentions_to_every_copy():
    """As the authors compute it: one map of the whole prompt, a set of values for it and for each phrase."""
    context, q = drawn(2, 10, 6), drawn(2, 12, 4, seed=4)
    to_k, to_v = drawn(6, 4, seed=5), drawn(6, 4, seed=6)
    seen = (q @ (context @ to_k).transpose(1, 2) / 2).softmax(-1)
    outputs = [seen @ (context @ to_v)]
    for phrase in PHRASES:
        copy = context.clone()
        for row, alone in zip(phrase.rows, phrase.alone, strict=True):
            copy[:, row] = alone
        outputs.append(seen @ (copy @ to_v))
    expected = torch.stack(outputs).mean(0)
    found = seen @ (told_context(context, PHRASES).double() @ to_v)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)  # the mean is taken in float32
    assert (expected - outputs[0]).abs().max() > 0.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rows_without_a_phrase_and_everything_at_no_strength_keep_their_bits(dtype):
    context = drawn(3, 10, 6).to(dtype)
    told = told_context(context, PHRASES[:1])
    assert told.dtype == dtype
    others = [i for i in range(10) if i not in PHRASES[0].rows]
    assert torch.equal(told[:, others], context[:, others])
    assert not torch.equal(told, context)
    assert torch.equal(told_context(context, PHRASES, 0.0), context)
    assert torch.equal(told_context(context, []), context)


def test_half_the_strength_goes_half_the_way():
    context = drawn(1, 10, 6).float()
    half, whole = (told_context(context, PHRASES, strength) for strength in (0.5, 1.0))
    torch.testing.assert_close(half - context, (whole - context) / 2)
