"""Inversions against diffusers' schedulers, in float64."""

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler

from explainable_latents.nodes.core.methods.inversion import ddim_step, noise_map
from tests.core.methods.inverted import curved, network, state

EXACT = {"rtol": 1e-9, "atol": 1e-9}


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
