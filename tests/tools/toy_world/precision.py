"""The number format that a training computes in."""

from __future__ import annotations

import torch


def mixed(device: torch.device) -> torch.autocast:
    """Autocast to bfloat16 where `device` has units for it, else float32: emulated, it is a hundred times slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16_units(device))


def has_bfloat16_units(device: torch.device) -> bool:
    """Whether the device itself multiplies bfloat16 numbers."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    units = torch.cpu.get_capabilities()
    return any(units.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))
