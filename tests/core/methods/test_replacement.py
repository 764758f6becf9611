"""Blending states and fitting references."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.methods.masking import ImageMasking
from explainable_latents.nodes.core.methods.replacement import Policy, blend, check_reference, fit_reference


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_ones_give_the_inside_and_zeros_the_outside_bit_for_bit(dtype):
    inside, outside = torch.randn(2, 2, 4, 5, 7).to(dtype)
    outside[0, 0, 0, 0] = float("nan")  # what is masked out must not leak
    ones, zeros = torch.ones(2, 1, 5, 7), torch.zeros(2, 1, 5, 7)
    assert torch.equal(blend(ones, inside, outside), inside)
    assert torch.equal(blend(zeros, outside.nan_to_num(), inside), inside)


@given(st.floats(0, 1, width=32))
def test_values_between_mix_linearly(weight):
    inside, outside = torch.tensor([[[[3.0]]]]), torch.tensor([[[[-1.0]]]])
    mixed = blend(torch.full((1, 1, 1, 1), weight), inside, outside).item()
    assert mixed == pytest.approx(3 * weight - (1 - weight), abs=1e-6)


def test_one_reference_serves_a_batch():
    reference = torch.randn(1, 4, 5, 7)
    assert torch.equal(fit_reference(reference, torch.zeros(3, 4, 5, 7)), reference.repeat(3, 1, 1, 1))


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((1, 4, 16, 24), "reference latent is 16 x 24 with 4 channels but the sampled latent is 16 x 16 with 4"),
        ((1, 16, 16, 16), "16 x 16 with 16 channels but"),
        ((2, 4, 16, 16), "2 reference latents for a batch of 3"),
    ],
)
def test_a_reference_that_does_not_fit_is_refused_with_both_sizes(shape, words):
    with pytest.raises(ValueError, match=words):
        fit_reference(torch.zeros(shape), torch.zeros(3, 4, 16, 16))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Policy("erase"), "'erase' is not one of: keep, reference, cached reference"),
        (lambda: Policy("cached reference", 1000), "timestep 1000 must lie between 0"),
        (lambda: ImageMasking(torch.zeros(4, 4)), r"got \(4, 4\)"),
        (lambda: ImageMasking(torch.full((1, 4, 4), 2.0)), "from 0 .outside. to 1"),
        (lambda: ImageMasking(torch.full((1, 4, 4), float("nan"))), "from 0 .outside. to 1"),
    ],
)
def test_mistakes_state_the_value_and_what_is_allowed(call, words):
    with pytest.raises(ValueError, match=words):
        call()


EMPTY, PICTURE = torch.zeros(1, 4, 2, 2), torch.ones(1, 4, 2, 2)


@pytest.mark.parametrize("policies", [("keep", "reference"), ("cached reference", "keep")])
@pytest.mark.parametrize("reference", [EMPTY, torch.cat([PICTURE, EMPTY])])
def test_an_empty_latent_as_reference_is_an_error_not_noisy_grey(policies, reference):
    with pytest.raises(ValueError, match=r"the reference latent is empty .* Connect the encoded reference picture"):
        check_reference(reference, tuple(map(Policy, policies)))


def test_an_empty_latent_is_no_mistake_where_nothing_is_taken_from_it():
    check_reference(EMPTY, (Policy("keep"), Policy("keep")))
    check_reference(PICTURE, (Policy("keep"), Policy("reference")))
