"""A toy checkpoint as a stock ComfyUI loads it, for measurements."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from ..comfyui.paths import toy_checkpoint


class Toy:
    """Model, CLIP and VAE of a `checkpoint`; of the first one if none is given."""

    def __init__(self, checkpoint: Path | None = None) -> None:
        import comfy.sd

        from . import comfyui_toy_model  # noqa: F401  registers the models

        file = checkpoint or toy_checkpoint()
        self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(str(file))

    def encode(self, text: str) -> Any:
        """Conditioning of a prompt."""
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(text))

    def sigma(self, level: float) -> float:
        """The model's own noise level at a share of its times, 0 (none) to 1: timesteps of 1000, or those of a flow."""
        sampling = self.model.get_model_object("model_sampling")
        return float(sampling.sigma(torch.tensor(level * 1000 if self.model.model.model_type.name == "EPS" else level)))

    def generate(self, prompt: str, seeds: range, cfg: float, sampler: str, scheduler: str) -> torch.Tensor:
        """One 128×128 picture per seed after 50 steps from pure noise, [N,3,128,128] in [0,1].

        Each equals a batch of one.
        """
        import nodes

        pictures = []
        for seed in seeds:
            settings = (seed, 50, cfg, sampler, scheduler, self.encode(prompt), self.encode(""))
            (latent,) = nodes.common_ksampler(self.model, *settings, {"samples": torch.zeros(1, 4, 16, 16)})
            pictures.append(self.vae.decode(latent["samples"]).permute(0, 3, 1, 2))
        return torch.cat(pictures).clamp(0, 1)
