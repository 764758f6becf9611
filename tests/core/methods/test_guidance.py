"""At which steps guidance acts, and how far each unit moves the state."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from explainable_latents.nodes.core.methods.guidance import (
    UNITS,
    Guidance,
    change,
    guided_steps,
    of_prediction,
    refinement_peaks,
    repeats_at,
)


@pytest.mark.parametrize(
    ("text", "total", "steps"),
    [
        ("0-50%", 50, range(25)),  # the published i < 25 of 50
        ("0-50%", 7, range(3)),
        ("0%-50%", 6, range(3)),
        ("29-57 %", 100, range(29, 57)),  # 0.29 · 100 is 28.999... in floating point
        ("3, 1, 5-6", 10, (1, 3, 5, 6)),
        ("0-100%", 4, range(4)),
        ("60-70", 20, ()),
        ("0-0%", 20, ()),
        ("", 20, ()),
    ],
)
def test_steps_by_shares_and_numbers(text, total, steps):
    assert guided_steps(text, total) == tuple(steps)


@pytest.mark.parametrize("text", ["half", "50%", "3-1", "60-40%", "0-101%", "-1"])
def test_what_is_no_part_of_a_run_is_refused_with_what_to_write(text):
    with pytest.raises(ValueError, match=r"steps: .* is no part of a run\. Write a share of it \(0-50%\)"):
        guided_steps(text, 20)


def test_a_table_for_fifty_steps_is_scaled_to_the_run():
    published = "0: 0.05, 10: 0.5, 20: 0.8"
    assert refinement_peaks(published, 50) == {0: 0.05, 10: 0.5, 20: 0.8}
    assert refinement_peaks(published, 20) == {0: 0.05, 4: 0.5, 8: 0.8}
    assert refinement_peaks(published, 1) == {0: 0.8}  # the highest of those that fall together
    assert refinement_peaks(" ", 50) == {}
    for wrong in ("0.5", "0: 1.5", "0: 0.5; 3: 0.7", "a: 1"):
        with pytest.raises(ValueError, match=r"is not 'step: peak' with a peak from 0 to 1"):
            refinement_peaks(wrong, 50)


def test_how_often_at_each_step():
    assert repeats_at("5", 3) == (5, 5, 5)
    assert repeats_at("1", 0) == ()
    # LLM-grounded diffusion, of 50 steps and of 10
    published = [4] * 5 + [3] * 5 + [2] * 10 + [1] * 30
    assert repeats_at("0: 4, 5: 3, 10: 2, 20: 1", 50) == tuple(published)
    assert repeats_at("20: 1, 0: 4, 5: 3, 10: 2", 10) == tuple(published[::5])
    assert repeats_at("10: 2", 5) == (1, 2, 2, 2, 2)
    for wrong in ("", "0", "0: 0", "x", "1.5", "3, 4:", "-1"):
        with pytest.raises(ValueError, match=r"repeats: .* is not how often. Write a number from 1 on \(5\), or from"):
            repeats_at(wrong, 50)


def test_the_published_step_sizes_over_a_run_of_fifty():
    """20·√r with r = linspace(1, 0.5, 50), as the authors' code has it."""
    expected = 20 * torch.linspace(1, 0.5, 50, dtype=torch.float64).sqrt()
    found = torch.tensor([Guidance().size_at(i, 50) for i in range(50)], dtype=torch.float64)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    assert Guidance(strength=0.5, schedule="constant").size_at(49, 50) == 10
    assert Guidance().size_at(0, 1) == 20


@pytest.mark.parametrize("sigma", [14.6, 1.0, 0.03])
def test_a_step_of_the_networks_latent_is_the_latent_unit(sigma):
    """z <- z - α ∂L/∂z by hand, z = c x, is x <- x - (α/c²) ∂L/∂x."""
    generator = torch.Generator().manual_seed(0)
    c, alpha = 1 / math.sqrt(1 + sigma**2), 0.7
    x = torch.randn(2, 4, 5, 3, generator=generator, dtype=torch.float64) * sigma
    weights = torch.randn(x.shape, generator=generator, dtype=torch.float64)

    def loss(z):
        return (weights * z).tanh().sum()

    z = (c * x).requires_grad_()
    moved_z = z - alpha * torch.autograd.grad(loss(z), z)[0]
    variable = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss(c * variable), variable)
    moved = x - change(gradient, "latent", alpha, sigma, c)
    torch.testing.assert_close(moved * c, moved_z.detach(), atol=1e-12, rtol=1e-12)


def test_the_other_units():
    gradient, sigma = torch.full((2, 4, 2, 2), 0.5), 3.0
    c = 1 / math.sqrt(1 + sigma**2)
    assert change(gradient, "variance", 30, sigma, c)[0, 0, 0, 0] == pytest.approx(30 * 9 * 0.5)
    assert change(gradient, "ddim", 5, sigma, c)[0, 0, 0, 0] == pytest.approx(5 * 3 * math.sqrt(10) * 0.5)
    # every picture by itself: the second one's gradient is ten times as large, its change is not
    gradient[1] *= 10
    moved = change(gradient, "relative", 0.05, sigma, c)
    torch.testing.assert_close(moved.square().mean((1, 2, 3)).sqrt(), torch.full((2,), 0.15))


@pytest.mark.parametrize("unit", UNITS)
def test_a_picture_without_a_finite_gradient_is_not_moved_and_leaves_the_others_alone(unit):
    gradient = torch.ones(3, 4, 2, 2)
    gradient[0], gradient[1, 0, 0, 0] = 0, torch.nan
    moved = change(gradient, unit, 0.1, 2.0, 0.4)
    assert not moved[:2].any()
    assert torch.equal(moved[2:], change(gradient[2:], unit, 0.1, 2.0, 0.4))
    assert moved[2:].all()


def test_a_change_of_the_prediction_moves_an_euler_step_as_the_state_would_to_first_order():
    """On a linear denoiser D(x) = a x: halving the step width halves the difference, relative to the move."""
    x, moved, a, sigma = torch.tensor(3.0, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64), 0.3, 5.0

    def euler(x, denoised, sigma_next):
        return denoised + (x - denoised) * sigma_next / sigma

    differences = []
    for width in (0.4, 0.2, 0.1):
        after = sigma - width
        by_state = euler(x - moved, a * (x - moved), after)
        by_prediction = euler(x, a * x - of_prediction(moved, sigma, after), after)
        differences.append(float((by_state - by_prediction).abs() / moved))
    assert differences[0] < 0.1
    for wide, narrow in pairwise(differences):
        assert narrow == pytest.approx(wide / 2, rel=1e-6)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"unit": "pixels"}, "unit 'pixels' is not one of: latent, variance, ddim, relative"),
        ({"schedule": "rising"}, "schedule 'rising' is not one of"),
        ({"act_on": "noise"}, "act_on 'noise' is not one of: auto, state, prediction"),
        ({"strength": -1.0}, r"strength -1.0 must be 0 \(off\) or a positive number"),
        ({"step_size": math.nan}, "step_size nan must be"),
        ({"steps": "always"}, "steps: 'always' is no part of a run"),
        ({"refinement": "x"}, "refinement: 'x' is not"),
        ({"repeats": "often"}, "repeats: 'often' is not how often"),
        ({"until": math.inf}, "until inf must be"),
    ],
)
def test_wrong_settings_are_refused(wrong, says):
    with pytest.raises(ValueError, match=says):
        Guidance(**wrong)
