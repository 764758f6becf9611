"""A run of the model that no sampler of the host makes: the pack's own walk through the noise levels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.inversion import Network
from ..one_call import without_ours
from ..ui.running_node import progress_bar


@dataclass(frozen=True)
class Guided:
    """A model with the prompts that guide it.

    positive, negative: CONDITIONINGs. cfg: the guidance scale; at 1 the negative prompt takes no part. LoRA, ControlNet
    and other patches act; captures, masks and twins of this pack do not.
    """

    model: ModelPatcher
    positive: list
    negative: list
    cfg: float

    @property
    def sampling(self) -> Any:
        """The host's `model_sampling`."""
        return self.model.get_model_object("model_sampling")

    def walk(
        self, latent: dict, sigmas: Tensor, calls: int, way: Callable[[Network, Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Go through the noise levels `sigmas` with the latents of a LATENT, as `way` says; returns its latents.

        way: is given the network, the latents [B,C,h,w] in the model's scale and the levels, on the network's device,
        and returns latents in that scale. calls: how many model calls it makes, for the progress bar, which also lets
        the user cancel. Raises ValueError for latents of zeros.
        """
        samples = latent["samples"]
        if not samples.flatten(1).any(1).all():
            raise ValueError(
                "the latent is empty (zeros, as Empty Latent Image makes them), so there is no picture in it: connect "
                "an encoded picture (VAE Encode)"
            )
        patcher = without_ours(self.model)
        guider = comfy.samplers.CFGGuider(patcher)
        guider.set_conds(self.positive, self.negative)
        guider.set_cfg(self.cfg)
        progress, sampling = progress_bar(), self.sampling

        def function(
            model: Any, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Callable | None, disable: bool
        ) -> Tensor:
            """A sampler function of the host's."""
            made = 0

            def predict(x: Tensor, sigma: Tensor) -> Tensor:
                nonlocal made
                found = model(x, sigma * x.new_ones(len(x)), **extra_args)
                made += 1
                progress(made, max(calls, made))
                return found

            def input_scale(sigma: Tensor) -> Tensor:
                return sampling.calculate_input(sigma.reshape(1), sigma.new_ones((1, 1, 1, 1))).reshape(())

            least = sigmas.new_tensor(float(sampling.sigma_min))
            return way(Network(predict, input_scale, least), model.latent_image, sigmas)

        sampler = comfy.samplers.KSAMPLER(function)
        return guider.sample(torch.zeros_like(samples), samples, sampler, sigmas, disable_pbar=True, seed=0)

    def as_latent(self, state: Tensor, sigma: float) -> Tensor:
        """A sampler's state [B,C,h,w] at a noise level as a LATENT holds one that is to be sampled on without noise."""
        scaled = self.sampling.inverse_noise_scaling(torch.tensor([sigma]), state)
        return self.model.model.process_latent_out(scaled)


def schedule(model: ModelPatcher, steps: int, scheduler: str, denoise: float, given: Tensor | None) -> Tensor:
    """The noise levels [steps + 1] of a KSampler with these settings, or the SIGMAS that are `given` instead.

    Raises ValueError for less than one step, a denoise of 0, and levels that do not end at 0.
    """
    if given is None:
        if steps < 1 or not 0 < denoise <= 1:
            raise ValueError(
                f"steps {steps} and denoise {denoise}: an inversion needs a step, and a denoise above 0 to 1"
            )
        given = comfy.samplers.KSampler(model, steps, torch.device("cpu"), "euler", scheduler, denoise).sigmas
    if len(given) < 2 or given[-1] != 0:
        raise ValueError(
            f"the sigmas end at {float(given[-1]) if len(given) else 'nothing'}, but an inversion starts from the "
            "picture itself, at 0: connect the whole schedule, or the low part of Split Sigmas"
        )
    return given.detach().float().cpu()


def with_samples(latent: dict, samples: Tensor) -> dict:
    """A LATENT like `latent` of other samples, without its noise mask: all of it was sampled."""
    return {**{key: value for key, value in latent.items() if key != "noise_mask"}, "samples": samples}
