"""A normal generation that also keeps where the model looks at the prompt's words."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import nodes
import torch
from comfy.model_patcher import ModelPatcher
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ..core.maps.colours import COLORMAPS
from ..core.maps.saliency import Saliency
from .attention.observer import AttentionCapture, observe
from .parsed_words import parse_and_show
from .tokens import encode
from .ui.heat_maps import SCALES, HeatMaps
from .ui.inspector import inspector

OPACITY = 0.6  # of the maps over the picture, as Saliency Overlay's default
_NO_VAE = "Show Attention has no picture: connect the checkpoint's VAE to its input vae, or decode its latent yourself"


@dataclass(frozen=True)
class ShownGeneration:
    """What a generation gave.

    latent, image: the sampled latent and, where there is a VAE, the picture; without one, what blocks the nodes after
    it. saliency: the words' maps. sheet: IMAGE [1,H,W,3] of the mean maps, for the node. shown: what chips and
    inspector show.
    """

    latent: dict[str, Any]
    image: Tensor | ExecutionBlocker
    saliency: Saliency
    sheet: Tensor
    shown: dict[str, Any]


def generate_and_show(
    model: ModelPatcher,
    clip: Any,
    vae: Any | None,
    prompt: tuple[str, str, str, str, str],
    negative: str,
    stock: tuple,
    over_steps: str,
) -> ShownGeneration:
    """Encode both prompts, sample and decode as the host's own nodes do, and read the attention to the words.

    prompt: text, named words, parser, extent and selection, see `parse_and_show`. stock: seed, steps, cfg, names of
    sampler and scheduler, latent and denoise as KSampler takes them. over_steps: of the saliency, see
    `core.maps.saliency.over_steps`; the inspector has the mean and every step. Raises ValueError as `parse_and_show`
    and `observe` do.
    """
    subjects, chips = parse_and_show(clip, *prompt)
    positive = encode(clip, prompt[0])
    observed = model.clone()
    capture = observe(observed, subjects, positive=positive)
    *settings, latent, denoise = stock
    (made,) = nodes.common_ksampler(observed, *settings, positive, encode(clip, negative), latent, denoise=denoise)
    picture = None if vae is None else nodes.VAEDecode().decode(vae, made)[0]
    samples = made["samples"]
    mean, colours = capture.saliency(samples, "all", "mean"), COLORMAPS[0]
    sheet = HeatMaps(mean, picture, colours, OPACITY, SCALES[0]).sheet()
    saliency = capture.saliency(samples, "all", over_steps)
    viewed = inspector(_with_every_step(mean, capture, samples), picture, colours, SCALES[0], saliency)
    image = ExecutionBlocker(_NO_VAE) if picture is None else picture
    return ShownGeneration(made, image, saliency, sheet, {"el_chips": [chips], **viewed})


def _with_every_step(mean: Saliency, capture: AttentionCapture, samples: Tensor) -> Saliency:
    """The mean of the steps, followed by the maps of each."""
    each = capture.saliency(samples, "all", "each")
    return replace(mean, maps=torch.cat([mean.maps, each.maps]), labels=mean.labels + each.labels)
