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


def test_another_label_is_refused():
    with pytest.raises(ValueError, match="label 'none' is not one of: higher level, lower level"):
        ddim_step(state(), torch.tensor(0.0), torch.tensor(1.0), network(curved), "none")
