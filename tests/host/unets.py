"""Small random UNets of SD 1.x, SD 2.x and SDXL type as the host builds them, and what sampling with them needs."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from explainable_latents.nodes.core.words.subjects import Subject, Subjects

CONTEXT = 64
SUBJECTS = Subjects(
    "a red dog on a beach",
    (
        Subject("dog", "subject", (6, 9), {"l": (3,), "g": (3,)}),
        Subject("beach", "scene", (15, 20), {"l": (6, 7), "g": (6, 7)}),
    ),
    "rules",
    {"l": (1, 2, 3, 4, 5, 6, 7), "g": (1, 2, 3, 4, 5, 6, 7)},
)

_COMMON = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 32,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 2],
    "use_spatial_transformer": True,
    "context_dim": CONTEXT,
    "adm_in_channels": None,
    "use_temporal_attention": False,
    "legacy": False,
    "use_checkpoint": False,
}
_KINDS = {
    "SD15": {"num_heads": 8, "num_head_channels": -1, "use_linear_in_transformer": False, "depth": (1, 1)},
    "SD20": {"num_heads": -1, "num_head_channels": 32, "use_linear_in_transformer": True, "depth": (1, 1)},
    "SDXL": {
        "num_heads": -1,
        "num_head_channels": 32,
        "use_linear_in_transformer": True,
        "depth": (0, 2),
        "num_classes": "sequential",
        "adm_in_channels": 2816,
    },
}


def unet_config(kind: str, dtype: torch.dtype = torch.float32, **changes: Any) -> dict:
    """The host's description of a small UNet of this kind, with some of its entries changed."""
    options = copy.deepcopy(_COMMON | _KINDS[kind])
    outer, inner = options.pop("depth")
    depths = {
        "transformer_depth": [outer, inner],
        "transformer_depth_output": [outer, outer, inner, inner],
        "transformer_depth_middle": inner,
    }
    return options | depths | {"dtype": dtype} | changes


def random_unet(
    kind: str = "SD15",
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    weights: dict | None = None,
    quantised: bool = False,
    computes_in: torch.dtype | None = None,
    **changes: Any,
):
    """A ModelPatcher of a random network with strong cross-attention, or of the `weights` given.

    quantised: the weights come as the host keeps quantised checkpoints, with scales and formats beside some of them.
    computes_in: the host casts the weights to this precision when they are used. changes: of its `unet_config`.
    """
    import comfy.model_patcher
    import comfy.supported_models

    described = unet_config(kind, dtype, **changes)
    config = getattr(comfy.supported_models, kind)(copy.deepcopy(described))
    config.unet_config |= described
    config.manual_cast_dtype = torch.float32 if quantised else computes_in
    config.quant_config = {"mixed_ops": True} if quantised else None
    model = config.get_model({}, "", device="cpu")
    network = model.diffusion_model
    if weights is None:
        generator = torch.Generator().manual_seed(seed)
        # into their places, one after the other: a network of full size is not in memory twice
        for name, value in network.state_dict().items():
            scale = 1.5 / value[0].numel() ** 0.5 if value.ndim > 1 else 0.05
            offset = 1.0 if value.ndim == 1 and name.endswith("weight") else 0.0
            drawn = torch.randn(value.shape, generator=generator) * scale + offset
            value.copy_(drawn * 0.05 if name == "out.2.weight" else drawn)
    else:
        network.load_state_dict(weights)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


def conditioning(seed: int, chunks: int = 1, **extra) -> list:
    """A random CONDITIONING of `chunks` times 77 tokens."""
    generator = torch.Generator().manual_seed(seed)
    context = torch.randn(1, 77 * chunks, CONTEXT, generator=generator)
    return [[context, {"pooled_output": torch.randn(1, 1280, generator=generator), **extra}]]


def noise(batch: int = 1, grid: tuple[int, int] = (16, 16), seed: int = 0) -> Tensor:
    return torch.randn(batch, 4, *grid, generator=torch.Generator().manual_seed(seed))


def sample(
    model,
    steps: int = 3,
    cfg: float = 4.0,
    batch: int = 1,
    grid: tuple[int, int] = (16, 16),
    positive: list | None = None,
    negative: list | None = None,
    sampler: str = "euler",
    start: Tensor | None = None,
    callback=None,
    noise_mask: Tensor | None = None,
) -> Tensor:
    """The host's own sampling from fixed noise; `start` replaces that noise."""
    import comfy.sample

    start = noise(batch, grid) if start is None else start
    # HyperTile and ToMe draw from the global generator
    torch.manual_seed(0)
    return comfy.sample.sample(
        model,
        start,
        steps,
        cfg,
        sampler,
        "normal",
        positive or conditioning(1),
        negative or conditioning(2),
        torch.zeros_like(start),
        callback=callback,
        noise_mask=noise_mask,
        disable_pbar=True,
        seed=0,
    )
