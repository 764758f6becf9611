"""Small random VAEs and CLIP image encoders of the host's own classes."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

WIDTH, SIDE = 12, 32
_DECODER = {
    "double_z": True,
    "z_channels": 4,
    "resolution": 32,
    "in_channels": 3,
    "out_ch": 3,
    "ch": 32,
    "ch_mult": [1, 2, 2, 2],
    "num_res_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
_EYES = {
    "num_hidden_layers": 3,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "hidden_act": "quick_gelu",
    "model_type": "clip_vision_model",
    "num_channels": 3,
    "patch_size": 8,
    "image_size": SIDE,
    "projection_dim": WIDTH,
}


def randomise(network: nn.Module, seed: int, gain: float = 1.0) -> None:
    """Give every weight a random number of the size that keeps what passes it `gain` times as large as it was."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            scale = gain * value[0].numel() ** -0.5 if value.ndim > 1 else 0.05
            offset = float(value.ndim == 1 and name.endswith("weight"))
            value.copy_(torch.randn(value.shape, generator=generator) * scale + offset)


def random_vae(dtype: torch.dtype = torch.float32, seed: int = 0, tiny: bool = False, **changes: Any) -> Any:
    """A VAE of SD type; tiny: TAESD. changes: of its decoder's description."""
    import comfy.sd
    from comfy.taesd.taesd import TAESD

    if tiny:
        network = TAESD()
        randomise(network, seed, gain=0.6)  # its blocks add up, without norms
        vae = comfy.sd.VAE(sd=network.state_dict(), device=torch.device("cpu"), dtype=dtype)
    else:
        config = {"params": {"ddconfig": {**_DECODER, **changes}, "embed_dim": 4}}
        vae = comfy.sd.VAE(sd={}, device=torch.device("cpu"), config=config, dtype=dtype)
        randomise(vae.first_stage_model, seed)
    vae.first_stage_model.to(dtype)
    return vae


def random_eyes(dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A CLIP image encoder with embeddings of WIDTH numbers, for pictures of SIDE pixels."""
    import comfy.clip_vision

    eyes = comfy.clip_vision.ClipVisionModel(_EYES)
    randomise(eyes.model, seed)
    eyes.model.to(dtype)
    return eyes
