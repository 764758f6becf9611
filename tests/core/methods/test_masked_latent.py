"""Masked-latent replacement: reading manipulate_at, blending states, fitting references; and the EL_MASKING values."""

import contextlib

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explainable_latents.nodes.core.methods.masked_latent import (
    Policy,
    blend,
    check_reference,
    check_steps,
    fit_reference,
    parse_steps,
    with_frames,
)
from explainable_latents.nodes.core.methods.masking import ImageMasking


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("5, 18, 28", (5, 18, 28)),
        ("28,5 ,18,5", (5, 18, 28)),
        ("2-4", (2, 3, 4)),
        ("2 - 4, 3, 9", (2, 3, 4, 9)),
        ("10%", (3,)),
        ("15%, 50%, 80%", (5, 17, 28)),
        ("0%, 100%", (0, 35)),
        ("12.5 %", (4,)),
        ("35", (35,)),
        ("", ()),
        (" , ", ()),
    ],
)
def test_steps_ranges_and_shares_of_35_steps(text, steps):
    assert parse_steps(text, 35) == steps


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("36", "step 36 does not exist. This run makes 35 steps: 0 to 34"),
        ("30-40", "step 40 does not exist"),
        ("4-2", "range 4-2 runs backwards; write 2-4"),
        ("101%", "more than 100%"),
        ("five", "'five' is not a step"),
        ("-3", "'-3' is not a step"),
        ("3.5", "'3.5' is not a step"),
        ("5; 18", "'5; 18' is not a step"),
    ],
)
def test_mistakes_name_the_item_and_what_is_allowed(text, words):
    with pytest.raises(ValueError, match=words):
        parse_steps(text, 35)


def test_every_whole_share_of_100_steps_is_that_step():
    assert [parse_steps(f"{share}%", 100) for share in range(101)] == [(share,) for share in range(101)]


@pytest.mark.parametrize(
    ("text", "total", "offer"),
    [
        ("5, 18, 28", 20, "steps of a run of 35, write 2, 10, 16 here, or 14%, 51%, 80% for a run of any length"),
        ("2-4, 40", 20, r"steps of a run of 50, write 0-1, 16 here\.$"),
        ("2-40", 20, r"steps of a run of 50, write 0-16 here\.$"),
        ("5-999999999999", 20, r"steps of a run of 999999999999, write 0-20 here\.$"),
        ("3, 2000, 10%", 20, "steps of a run of 2000, write 0, 20 here, or 0%, 100% for a run of any length"),
    ],
)
def test_a_run_that_is_too_short_is_offered_the_same_steps_scaled_to_it(text, total, offer):
    with pytest.raises(ValueError, match=offer):
        parse_steps(text, total)


def test_what_can_be_read_is_known_before_the_run():
    check_steps("5, 18, 2800, 2-4, 10%")
    with pytest.raises(ValueError, match="'soon' is not a step"):
        check_steps("5, soon")


@given(st.sets(st.integers(0, 60), max_size=12), st.integers(60, 200))
def test_any_set_of_steps_survives_writing_and_reading(steps, total):
    assert parse_steps(", ".join(map(str, sorted(steps, reverse=True))), total) == tuple(sorted(steps))


@given(st.text(max_size=40) | st.from_regex(r"[0-9 ,%.-]{0,20}", fullmatch=True))
def test_any_text_is_read_or_refused_with_a_value_error(text):
    steps = ()
    with contextlib.suppress(ValueError):
        steps = parse_steps(text, 50)
    assert all(0 <= step <= 50 for step in steps)


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


def test_a_picture_is_one_frame_where_the_state_has_frames():
    picture, frames = torch.randn(2, 4, 5, 7), torch.randn(2, 4, 3, 5, 7)
    assert torch.equal(with_frames(picture, torch.zeros(2, 4, 1, 5, 7)), picture.reshape(2, 4, 1, 5, 7))
    assert with_frames(picture, torch.zeros(2, 4, 5, 7)) is picture
    assert with_frames(frames, torch.zeros(2, 4, 3, 5, 7)) is frames


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
        (lambda: Policy("erase"), "inside or outside 'erase' is not one of: keep, reference, cached reference"),
        (lambda: Policy("cached reference", 1000), "timestep 1000 must lie between 0"),
        (lambda: ImageMasking(torch.zeros(4, 4)), r"got \(4, 4\)"),
        (lambda: ImageMasking(torch.full((1, 4, 4), 2.0)), "from 0 .outside. to 1"),
        (lambda: ImageMasking(torch.full((1, 4, 4), float("nan"))), "from 0 .outside. to 1"),
    ],
)
def test_wrong_policies_and_masks_state_the_value_and_what_is_allowed(call, words):
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
