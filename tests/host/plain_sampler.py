"""Euler's method written out: what a sampler with masked latents has to give."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor


def sampled_with_masks(model, settings: tuple, masks: dict[int, Tensor], reference: Tensor) -> Tensor:
    """The latent of a KSampler with these settings that keeps the state where a mask is 1, and the reference elsewhere.

    settings: as `toy_sampling.Toy.settings` gives them; its sampler is not asked. masks: step -> [B,1 or C,h,w], of
    zeros and ones. The reference gets the noise of the run, as much as the step has.
    """
    import comfy.sample
    import comfy.samplers

    seed, steps, cfg, _, scheduler, positive, negative, start, denoise = settings
    samples = start["samples"]
    noise = comfy.sample.prepare_noise(samples, seed)
    clean = model.model.process_latent_in(reference)
    sigmas = comfy.samplers.KSampler(model, steps, torch.device("cpu"), "euler", scheduler, denoise).sigmas

    def replaced(x: Tensor, step: int, sigma: Tensor) -> Tensor:
        return torch.where(masks[step] > 0, x, clean + sigma * noise) if step in masks else x

    def loop(predict, x, sigmas, extra_args, *args, **kwargs) -> Tensor:
        for step, (sigma, after) in enumerate(pairwise(sigmas)):
            x = replaced(x, step, sigma)
            denoised = predict(x, sigma.expand(len(x)), **extra_args)
            x = x + (x - denoised) / sigma * (after - sigma)
        return replaced(x, len(sigmas) - 1, sigmas[-1])

    sampler = comfy.samplers.KSAMPLER(loop)
    return comfy.sample.sample_custom(
        model, noise, cfg, sampler, sigmas, positive, negative, samples, disable_pbar=True, seed=seed
    )


def on_the_grid(masks: Tensor, steps: tuple[int, ...]) -> dict[int, Tensor]:
    """Step -> mask [B,1,h,w], from the masks [steps·B,8h,8w] that a report has of these steps."""
    parts = masks[:, ::8, ::8].unsqueeze(1).chunk(len(steps))
    return dict(zip(steps, parts, strict=True))
