"""Noise that is drawn for two pictures at once is that of one, twice."""

from __future__ import annotations

import torch

from explainable_latents.nodes.host.editing.shared_noise import SharedNoise

ONE = (3, 4, 8, 8)
BOTH = (6, *ONE[1:])


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def test_whatever_draws_it(comfy):
    expected = torch.randn(ONE, generator=seeded())
    with SharedNoise(BOTH):
        drawn = [
            torch.randn(BOTH, generator=seeded()),
            torch.randn(*BOTH, generator=seeded()),
            torch.randn(size=BOTH, generator=seeded()),
            torch.empty(BOTH).normal_(generator=seeded()),
        ]
        torch.manual_seed(5)
        drawn.append(torch.randn_like(torch.empty(BOTH)))
        other = torch.randn(2, 8, generator=seeded())
    for noise in drawn:
        assert torch.equal(noise, torch.cat([expected, expected]))
    assert torch.equal(other, torch.randn(2, 8, generator=seeded()))


def test_the_path_of_a_brownian_motion_is_that_of_one_picture(comfy):
    from comfy.k_diffusion.sampling import BrownianTreeNoiseSampler

    levels = torch.tensor(0.1), torch.tensor(14.0)
    alone = BrownianTreeNoiseSampler(torch.zeros(ONE), *levels, seed=3, cpu=True)
    expected = alone(levels[1], torch.tensor(5.0))
    with SharedNoise(BOTH):
        both = BrownianTreeNoiseSampler(torch.zeros(BOTH), *levels, seed=3, cpu=True)(levels[1], torch.tensor(5.0))
    assert torch.equal(both, torch.cat([expected, expected]))


def test_it_pauses_around_the_model_and_is_over_after_the_block(comfy):
    noise = SharedNoise(BOTH)
    with noise:
        with noise.paused(), noise.paused():
            own = torch.randn(BOTH, generator=seeded())
        shared = torch.randn(BOTH, generator=seeded())
    assert torch.equal(own, torch.randn(BOTH, generator=seeded()))
    assert torch.equal(shared[:3], shared[3:])
    assert not torch.equal(own[:3], own[3:])
