"""What a toy's network learns to predict, and how noisy the latents are that it is shown."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from .modules import plain_attention


class Noised(NamedTuple):
    """Noisy latents `x` and what the network should say of them, `target`, both [B,4,16,16]; `time` as the network is
    told it and the loss's `weight`, both [B]."""

    x: Tensor
    time: Tensor
    target: Tensor
    weight: Tensor


class Objective(Protocol):
    """A network, and what it learns."""

    network: nn.Module

    def noised(self, x0: Tensor) -> Noised:
        """Add noise to latents [B,4,16,16], as much as chance has it for each."""

    def predict(self, noised: Noised, context: Tensor, keep: Tensor) -> Tensor:
        """What the network says of `noised` under a prompt's vectors [B,T,C], of which it may use those that `keep`
        [B,T] marks; [B,4,16,16]."""


def alphas_cumprod() -> Tensor:
    """Return ᾱ_t of Stable Diffusion 1.x for its 1000 timesteps (scaled-linear β from 0.00085 to 0.012)."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(0).float()


class NoisePrediction:
    """ε-prediction of the host's UNet with min-SNR weights (γ = 5, Hang et al. 2023)."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._options, device = _attention_options(network)
        self._alphas = alphas_cumprod().to(device)

    def noised(self, x0: Tensor) -> Noised:
        """Every one of the 1000 timesteps is as likely."""
        t = torch.randint(1000, (len(x0),), device=x0.device)
        noise, a = torch.randn_like(x0), self._alphas[t].view(-1, 1, 1, 1)
        snr = self._alphas[t] / (1 - self._alphas[t])
        return Noised(a.sqrt() * x0 + (1 - a).sqrt() * noise, t.float(), noise, snr.clamp(max=5) / snr)

    def predict(self, noised: Noised, context: Tensor, keep: Tensor) -> Tensor:
        """Vectors that are not kept are zero and stay keys, as in the host."""
        return self.network(noised.x, noised.time, context, transformer_options=dict(self._options))


class VelocityPrediction:
    """Flow matching (Lipman et al. 2023) with the host's transformers: noise minus picture on the straight line."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._options, _ = _attention_options(network)

    def noised(self, x0: Tensor) -> Noised:
        """Times from 0, the picture, to 1, pure noise: logit-normal, so that most lie between (Esser et al. 2024)."""
        time = torch.randn(len(x0), device=x0.device).sigmoid()
        noise, t = torch.randn_like(x0), time.view(-1, 1, 1, 1)
        return Noised((1 - t) * x0 + t * noise, time, noise - x0, torch.ones_like(time))

    def predict(self, noised: Noised, context: Tensor, keep: Tensor) -> Tensor:
        """Vectors that are not kept are no keys: the host hands over as many as a prompt has tokens."""
        import comfy.model_management as host

        longest = int(keep.any(0).nonzero().max()) + 1
        frames, mask = noised.x.unsqueeze(2), keep[:, :longest].int()
        before, host.in_training = host.in_training, True  # else its rotary embedding cannot be differentiated
        try:
            predicted = self.network(
                frames, noised.time, context[:, :longest], mask, transformer_options=dict(self._options)
            )
        finally:
            host.in_training = before
        return predicted.squeeze(2)


def _attention_options(network: nn.Module) -> tuple[dict, torch.device]:
    """What makes the attention of a network on a CPU fast to differentiate, and the network's device."""
    device = next(network.parameters()).device
    return {"optimized_attention_override": plain_attention} if device.type == "cpu" else {}, device
