"""What inversions are tried on: latents, and networks whose noise is a function that is known; in float64."""

from __future__ import annotations

import torch

from explainable_latents.nodes.core.methods.inversion import Network


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
