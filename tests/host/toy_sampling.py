"""Sampling with the toy checkpoint in this process: a prompt, latents, and the stock KSampler beside ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from explainable_latents.nodes.core.maps.masks import Shaping
from explainable_latents.nodes.core.methods.masked_latent import Policy
from explainable_latents.nodes.core.methods.masking import AttentionMasking, ImageMasking, Masking
from explainable_latents.nodes.core.words.parsing import parse
from explainable_latents.nodes.host.sampling.ksampler import sample_masked
from explainable_latents.nodes.host.sampling.masked_latent import MaskedLatent
from explainable_latents.nodes.host.tokens import tokenize

PROMPT = "a dog on the beach"
KEEP, REFERENCE, CACHED = Policy("keep"), Policy("reference"), Policy("cached reference", 80)


@dataclass(frozen=True)
class Toy:
    """Model, CLIP and the prompt's conditionings."""

    model: Any
    clip: Any
    positive: list
    negative: list

    @classmethod
    def load(cls, comfy: Any, checkpoint: Any) -> Toy:
        """From the checkpoint's file."""
        model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
        return cls(model, clip, *(clip.encode_from_tokens_scheduled(clip.tokenize(text)) for text in (PROMPT, "")))

    def attention(self, **shaping: Any) -> AttentionMasking:
        """A mask from attention to the prompt's subject."""
        subjects = parse(PROMPT, tokenize(self.clip, PROMPT), "")
        return AttentionMasking(subjects.with_role("subject"), Shaping(**shaping))

    def settings(
        self,
        start: dict,
        sampler: str = "ddpm",
        seed: int = 7,
        scheduler: str = "ddim_uniform",
        steps: int = 10,
        cfg: float = 3.0,
        denoise: float = 0.7,
    ) -> tuple:
        """What a KSampler is told, in its order."""
        return seed, steps, cfg, sampler, scheduler, self.positive, self.negative, start, denoise

    def stock(self, *args: Any, model: Any = None, **kwargs: Any) -> Tensor:
        """The latent of the host's KSampler with these `settings`, on `model` instead of the plain one if given."""
        import nodes

        *values, denoise = self.settings(*args, **kwargs)
        return nodes.common_ksampler(model or self.model, *values, denoise=denoise)[0]["samples"]


def latent(batch: int = 1, size: tuple[int, int] = (16, 16), seed: int = 3) -> dict:
    """A random LATENT."""
    return {"samples": torch.randn(batch, 4, *size, generator=torch.Generator().manual_seed(seed))}


def given(value: float, *shape: int) -> ImageMasking:
    """The same mask value everywhere."""
    return ImageMasking(torch.full(shape or (1, 16, 16), value))


def masked_run(
    model: Any, settings: tuple, masking: Masking, reference: dict, at: str, inside: Policy, outside: Policy
) -> tuple:
    """KSampler (Masked Latent): latent, masks, saliency."""
    return sample_masked(model, settings, MaskedLatent(masking, reference["samples"], at, inside, outside))
