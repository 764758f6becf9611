"""Inversions against closed forms and what the way back has to give; in float64."""

from __future__ import annotations

import pytest
import torch

from explainable_latents.nodes.core.methods.inversion import (
    LABELS,
    ddim_step,
    euler_step,
    fixed_point_step,
    norms,
    two_step,
)
from tests.core.methods.inverted import curved, network, state

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def there_and_back(steps: int, iterations: int, label: str = LABELS[0], epsilon=curved) -> float:
    """How far the round trip ends from where it began, as a share."""
    levels, z, net = torch.linspace(4, 0, steps + 1, dtype=torch.float64), state(), network(epsilon)
    x = z
    for low, high in torch.stack([levels[1:], levels[:-1]], 1).flip(0):
        x, _ = fixed_point_step(x, low, high, net, iterations, label)
    for high, low in torch.stack([levels[:-1], levels[1:]], 1):
        x = euler_step(x, high, low, net)
    return float((norms(x - z) / norms(z)).mean())


def test_a_constant_slope_comes_back_exactly_with_either_label():
    noise = state(seed=1)
    for label in LABELS:
        assert there_and_back(10, 0, label, lambda z, sigma: noise) < 1e-14


@pytest.mark.parametrize("label", LABELS)
def test_the_error_of_plain_inversion_falls_with_the_number_of_steps(label):
    """As 1/N: every doubling halves it, up to the share that the first step has for itself."""
    errors = torch.tensor([there_and_back(steps, 0, label) for steps in (40, 80, 160, 320)]).log2()
    slopes = errors[1:] - errors[:-1]
    torch.testing.assert_close(slopes[-1], torch.tensor(-1.0), rtol=0, atol=0.1)


def test_no_iteration_is_ddim_bit_for_bit_and_a_linear_slope_has_a_closed_form():
    low, high = torch.tensor([0.5, 2.0], dtype=torch.float64)
    net, x = network(curved), state()
    for label in LABELS:
        found, change = fixed_point_step(x, low, high, net, 0, label)
        assert torch.equal(found, ddim_step(x, low, high, net, label))
        assert torch.equal(change, torch.zeros(3, dtype=torch.float64))
    linear = network(lambda z, sigma: 0.3 * z * (1 + sigma**2) ** 0.5)
    found, change = fixed_point_step(x, low, high, linear, 60)
    torch.testing.assert_close(found, x / (1 - 0.3 * 1.5), **EXACT)
    before, _ = fixed_point_step(x, low, high, linear, 3)
    after, change = fixed_point_step(x, low, high, linear, 4)
    torch.testing.assert_close(change, norms(after - before) / norms(after), **EXACT)


def test_iterations_make_the_round_trip_exact():
    plain, some, many = (there_and_back(10, iterations) for iterations in (0, 3, 60))
    assert plain > 0.05
    assert some < plain / 4
    assert many < 1e-9


def along(levels: torch.Tensor, states: list[torch.Tensor], net) -> list[torch.Tensor]:
    """The states at all levels by the rule of two steps, from the first two."""
    found = list(states)
    for at in zip(levels[:-2], levels[1:-1], levels[2:], strict=True):
        found.append(two_step(*found[-2:], net.slope(found[-1], at[1]), at))
    return found


def test_the_rule_of_two_steps_is_the_papers():
    """Equation of O-BELM in the papers' latents z = x/√(1+σ²), with h of neighbouring levels σ = √(1-ᾱ)/√ᾱ."""
    sigmas = torch.tensor([3.0, 1.7, 0.4], dtype=torch.float64)
    shares = (1 + sigmas**2) ** -0.5
    x, slope = [state(seed=seed) for seed in (0, 1)], state(seed=2)
    h_next, h = sigmas[0] - sigmas[1], sigmas[1] - sigmas[2]
    z = [each * share for each, share in zip(x, shares, strict=False)]
    expected = (h / h_next) ** 2 * shares[2] / shares[0] * z[0] + (1 - (h / h_next) ** 2) * shares[2] / shares[1] * z[1]
    expected = expected - h * (h + h_next) / h_next * shares[2] * slope
    torch.testing.assert_close(two_step(*x, slope, tuple(sigmas)) * shares[2], expected, **EXACT)


@pytest.mark.parametrize(
    "epsilon", [curved, lambda z, sigma: 0.3 * z * (1 + sigma**2) ** 0.5], ids=["curved", "linear"]
)
def test_the_rule_of_two_steps_comes_back_exactly_whatever_the_levels_are(epsilon):
    """Every state; of levels at random, some steps ten times longer than the step before."""
    drawn = torch.rand(12, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    up, net, z = torch.cat([torch.zeros(1, dtype=torch.float64), drawn.cumsum(0)]), network(epsilon), state()
    states = along(up, [z, ddim_step(z, up[0], up[1], net)], net)
    back = along(up.flip(0), states[:-3:-1], net)
    for found, expected in zip(back, reversed(states), strict=True):
        torch.testing.assert_close(found, expected, **EXACT)
    assert there_and_back(12, 0, epsilon=epsilon) > 0.01  # plain DDIM


def test_the_rule_of_two_steps_is_of_second_order():
    """Of latents with deviation 0.5 the noise is known, and so is the way of each: x √(0.25 + σ²) / 0.5."""
    net = network(lambda z, sigma: z * (1 + sigma**2) ** 0.5 * sigma / (0.25 + sigma**2))
    z, errors = state(), []
    for steps in (20, 40, 80, 160):
        levels = 4 * torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** 2
        second = z * (0.25 + levels[1] ** 2) ** 0.5 / 0.5
        expected = z * (0.25 + levels[-1] ** 2) ** 0.5 / 0.5
        errors.append(norms(along(levels, [z, second], net)[-1] - expected).mean())
    slopes = torch.stack(errors).log2().diff()
    torch.testing.assert_close(slopes[-1], torch.tensor(-2.0, dtype=torch.float64), rtol=0, atol=0.15)


def test_another_label_is_refused():
    with pytest.raises(ValueError, match="label 'none' is not one of: higher level, lower level"):
        ddim_step(state(), torch.tensor(0.0), torch.tensor(1.0), network(curved), "none")
