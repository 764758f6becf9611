"""The map of DiffEdit in the host: a picture is noised, and the model is asked what two prompts make of it."""

from __future__ import annotations

import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.maps.saliency import Saliency
from ...core.methods.inversion import Network
from ...core.methods.prompt_difference import prompt_difference
from ..one_call import noise_sigma
from .own_run import Guided

LABEL = "difference"


def difference_map(
    model: ModelPatcher, source: list, target: list, latent: dict, noise_level: float, noises: int, seed: int
) -> Saliency:
    """Where the prompts `source` and `target` disagree about the B latents of a LATENT: one map [1,B,h,w].

    noise_level: from 0 to 1, see `noise_sigma`. noises: how many are averaged, the same ones for every latent and both
    prompts, each with a model call per prompt. seed: of them. Raises ValueError for a video, less than one noise, and
    as `noise_sigma` and `Guided.walk`.
    """
    samples = latent["samples"]
    if samples.ndim != 4:
        raise ValueError(
            f"the latent has {samples.ndim - 2} dimensions, but Prompt Difference is for pictures, not videos"
        )
    if noises < 1:
        raise ValueError(f"noises {noises} is too few: at least one noise is needed")
    sigmas = torch.tensor([noise_sigma(model, noise_level), 0.0])
    drawn = comfy.sample.prepare_noise(samples[:1].expand(noises, *samples.shape[1:]), seed)

    def slopes(prompt: list) -> list[Tensor]:
        guided, found = Guided(model, prompt, prompt, 1.0), []

        def way(network: Network, picture: Tensor, levels: Tensor) -> Tensor:
            for noise in drawn:
                noised = guided.sampling.noise_scaling(levels[:1], noise.expand(picture.shape).to(picture), picture)
                found.append(network.slope(noised, levels[0]).float().cpu())
            return picture

        guided.walk(latent, sigmas, noises, way)
        return found

    maps = prompt_difference(zip(slopes(target), slopes(source), strict=True)).unsqueeze(0)
    scale = model.get_model_object("latent_format").spacial_downscale_ratio
    return Saliency(maps, (LABEL,), float(sigmas[0]), None, tuple(maps.shape[-2:]), scale)
