"""Inversions against diffusers' schedulers, closed forms, and what the way back has to give; in float64."""

from __future__ import annotations

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from explainable_latents.nodes.core.methods.inversion import (
    LABELS,
    Network,
    ddim_step,
    euler_step,
    fixed_point_step,
    noise_map,
    norms,
)

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def state(batch: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(batch, 4, 5, 7, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(epsilon, least: float = 0.03) -> Network:
    """A network that predicts noise as a function of what it is given and of its noise level."""

    def scale(sigma):
        return (1 + sigma**2) ** -0.5

    def predict(x, sigma):
        return x - sigma * epsilon(x * scale(sigma), sigma)

    return Network(predict, scale, torch.tensor(least, dtype=torch.float64))


def curved(z: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return 0.5 * torch.tanh(1.3 * z + 0.2 * torch.log1p(sigma)) + 0.3 * z.roll(1, -1)


def there_and_back(steps: int, iterations: int, label: str = LABELS[0], epsilon=curved) -> float:
    """How far the round trip ends from where it began, as a share."""
    levels, z, net = torch.linspace(4, 0, steps + 1, dtype=torch.float64), state(), network(epsilon)
    x = z
    for low, high in torch.stack([levels[1:], levels[:-1]], 1).flip(0):
        x, _ = fixed_point_step(x, low, high, net, iterations, label)
    for high, low in torch.stack([levels[:-1], levels[1:]], 1):
        x = euler_step(x, high, low, net)
    return float((norms(x - z) / norms(z)).mean())


def test_with_the_label_of_the_higher_level_it_is_the_inverse_scheduler_of_diffusers():
    """The same network in both: it reads the papers' latents, of variance 1, and the level of the step."""
    scheduler = DDIMInverseScheduler(clip_sample=False)
    scheduler.set_timesteps(20)
    alphas = scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    x = z = state()
    low = torch.zeros((), dtype=torch.float64)
    for t in scheduler.timesteps:
        high = ((1 - alphas[t]) / alphas[t]) ** 0.5
        z = scheduler.step(curved(z, high), t, z).prev_sample
        x = ddim_step(x, low, high, network(curved))
        torch.testing.assert_close(x / (1 + high**2) ** 0.5, z, **EXACT)
        low = high


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


def test_noise_maps_lead_ddpm_of_diffusers_to_the_states_they_were_made_for():
    """DDIM with η = 1 is DDPM; it takes the noise of a step as `variance_noise`."""
    scheduler = DDIMScheduler(clip_sample=False, set_alpha_to_one=True)
    scheduler.set_timesteps(20)
    alphas = scheduler.alphas_cumprod = scheduler.alphas_cumprod.double()
    x, following, net = state(), state(seed=1), network(curved)
    t, down = scheduler.timesteps[3:5]
    high, low = (((1 - alphas[step]) / alphas[step]) ** 0.5 for step in (t, down))
    noise, end = noise_map(x, net.predict(x, high), following, high, low)
    torch.testing.assert_close(end, following, **EXACT)
    z = x / (1 + high**2) ** 0.5
    made = scheduler.step(curved(z, high), t, z, eta=1.0, variance_noise=noise).prev_sample
    torch.testing.assert_close(made * (1 + low**2) ** 0.5, following, **EXACT)


def test_another_label_is_refused():
    with pytest.raises(ValueError, match="label 'none' is not one of: higher level, lower level"):
        ddim_step(state(), torch.tensor(0.0), torch.tensor(1.0), network(curved), "none")
