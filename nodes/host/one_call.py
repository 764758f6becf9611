"""Saliency of an existing picture: its latent is noised to one noise level and the model is called once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import comfy.sample
import comfy.samplers
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..core.attention.refine import AUTO
from ..core.gradients.definition import ABS_GRAD_SAM
from ..core.maps.saliency import Saliency
from ..core.words.subjects import Subjects
from .attention.model_call import OURS
from .attention.observer import observe
from .autograd.gradient_probe import GradientProbe
from .ui.running_node import progress_bar

# Guidance by other nodes: it may call the model again or expect a negative prompt, but a probe is one positive call.
_GUIDANCE = (
    "sampler_cfg_function",
    "sampler_post_cfg_function",
    "sampler_pre_cfg_function",
    "sampler_calc_cond_batch_function",
    "disable_cfg1_optimization",
)


def noise_sigma(model: ModelPatcher, noise_level: float) -> float:
    """The σ at a noise level from 0 (clean) to 1 (pure noise): for SD models that of timestep 999·level.

    Raises ValueError outside 0 < level <= 1.
    """
    if not 0.0 < noise_level <= 1.0:
        raise ValueError(f"noise level {noise_level} is not in the range 0 < level <= 1")
    sampling = model.get_model_object("model_sampling")
    return min(float(sampling.percent_to_sigma(1.0 - noise_level)), float(sampling.sigma_max))


def without_ours(model: ModelPatcher) -> ModelPatcher:
    """A clone of `model` without what this pack's nodes installed on it.

    Otherwise captures and reports would record the probe as a sampler run, and masked latents would change it.
    """
    patcher = model.clone()
    for keys in patcher.wrappers.values():
        for key in [key for key in keys if str(key).startswith(OURS)]:
            del keys[key]
    return patcher


def probe(
    model: ModelPatcher,
    positive: list,
    latent: dict,
    subjects: Subjects,
    noise_level: float,
    seed: int,
    region: list | None = None,
    **options: Any,
) -> Saliency:
    """Attention maps [S,B,h,w] of the B latents of a LATENT, each noised with the seed's noise to `noise_level`.

    The model is called once on the positive conditioning. LoRA, ControlNet, hooks and attention patches act in it,
    guidance and this pack's other patches do not. region: the CONDITIONING of the subjects' prompt where another node
    applies it to a part of the picture. options: those of `observe`. The maps have no step. Raises ValueError as
    `observe` and `noise_sigma` do, and when the conditioning was not active at this noise level.
    """
    patcher = without_ours(model)
    capture = observe(patcher, subjects, positive=region, **options)
    call_once(patcher, positive, latent, noise_level, seed)
    saliency = capture.latest()
    if saliency is None:
        raise capture.nothing_seen(
            f"at noise level {noise_level}",
            "the positive conditioning is not active there (a timestep range); or another node hides it",
        )
    return replace(saliency, step=None)


def gradient_saliency(
    model: ModelPatcher,
    positive: list,
    latent: dict,
    subjects: Subjects,
    noise_level: float,
    seed: int,
    polarity: str,
    solver: str,
    definition: str = ABS_GRAD_SAM,
    layer: str = "last",
    region: list | None = None,
    refine: int = 0,
    refine_layers: str = AUTO,
) -> Saliency:
    """Abs-Grad-SAM [S,B,C,h,w] of the B latents of a LATENT, each noised with the seed's noise to `noise_level`.

    One call of the model on the positive conditioning; LoRA, ControlNet and attention patches take part, guidance does
    not. polarity: absolute or positive. solver: structured or exact. definition: `aggregated` gives [S,B,h,w] instead,
    each summing to 1. layer: as of `GradientProbe`. region: the CONDITIONING of the subjects' prompt where another node
    gives it to a part of the picture. refine, refine_layers: see `refine_plan`. Raises ValueError as `GradientProbe`.
    """
    patcher = without_ours(model)
    probe = GradientProbe(patcher, subjects, polarity, solver, definition, layer, region, refine, refine_layers)
    saliency = probe.measure(lambda: call_once(patcher, positive, latent, noise_level, seed), progress_bar())
    return replace(saliency.mapped(Tensor.cpu), step=None)


def call_once(
    patcher: ModelPatcher, positive: list, latent: dict, noise_level: float, seed: int, clean: bool = False
) -> None:
    """Call the model once, on the positive conditioning alone; guidance is removed from `patcher` (pass a clone).

    The latents of a LATENT are noised with the seed's noise to `noise_level`. clean: they are not: the network gets the
    latent itself and is told this noise level, as in DiffSeg. Raises ValueError as `noise_sigma` does.
    """
    for name in _GUIDANCE:
        patcher.model_options.pop(name, None)
    samples = comfy.sample.fix_empty_latent_channels(patcher, latent["samples"])
    guider = comfy.samplers.CFGGuider(patcher)
    guider.inner_set_conds({"positive": positive})
    sigmas = torch.tensor([noise_sigma(patcher, noise_level), 0.0])
    noise = comfy.sample.prepare_noise(samples, seed, latent.get("batch_index"))
    evaluate = _without_noise(patcher.get_model_object("model_sampling")) if clean else _evaluate
    guider.sample(noise, samples, comfy.samplers.KSAMPLER(evaluate), sigmas, disable_pbar=True, seed=seed)


def _evaluate(
    model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Callable | None, disable: bool
) -> Tensor:
    """A sampler function that evaluates the model at the first noise level and changes nothing."""
    model(x, sigmas[0] * x.new_ones(x.shape[0]), **extra_args)
    return x


def _without_noise(sampling: Any) -> Callable:
    """A sampler function like `_evaluate` of a state that reaches the network as the latent itself.

    sampling: the host's `model_sampling`, which scales a state before it gives it to the network.
    """

    def evaluate(
        model: Callable, x: Tensor, sigmas: Tensor, extra_args: dict, callback: Callable | None, disable: bool
    ) -> Tensor:
        scale = sampling.calculate_input(sigmas[:1], torch.ones_like(x[:1]))
        return _evaluate(model, model.latent_image / scale, sigmas, extra_args, callback, disable)

    return evaluate
