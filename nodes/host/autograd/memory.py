"""How much memory the gradients of a model call take, so that the host can make room for them before it begins."""

from __future__ import annotations

import math
from dataclasses import dataclass

import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from torch import nn

from ..families.unet_gradients import cross_attention, parts_behind

# Measured with the allocator's own record (torch.profiler) of SD 1.x, SD 2.x and SDXL networks of two widths, three
# sizes and three layers each, and rounded up; tests/host/autograd/test_memory.py repeats it. In numbers: what autograd
# keeps of everything that the layers put out (1.1 to 1.4), what one pass back takes of the largest of them (2.1 to
# 3.0), what the closed forms of the structured solver take of it (5.1), and how often each probability is held beside
# that.
_KEPT, _BACK, _CLOSED, _HELD = 1.45, 3.1, 5.3, 8.0

_BYTES = 4


@dataclass(frozen=True)
class Room:
    """What lies behind a cross-attention layer, in numbers (float32) for one latent.

    put_out: by all layers with weights together. widest: by the largest. weights: in all of them. attention: heads
    times query positions of the layer. sums: that the structured solver makes of each probability's derivative.
    """

    put_out: int
    widest: int
    weights: int
    attention: int
    sums: int

    def structured(self, batch: int, tokens: int) -> float:
        """Bytes that the structured solver takes."""
        numbers = _KEPT * self.put_out + _CLOSED * self.widest + (self.sums + _HELD) * self.attention * tokens
        return _BYTES * (batch * numbers + self.weights)

    def exact(self, batch: int, tokens: int, together: int) -> float:
        """Bytes that backward passes of `together` elements at once take."""
        kept = _KEPT * self.put_out + _HELD * self.attention * tokens
        return _BYTES * (batch * kept + self.weights) + together * self.exact_more(batch, tokens)

    def exact_more(self, batch: int, tokens: int) -> float:
        """Bytes that each element of a backward pass takes."""
        return _BYTES * batch * (_BACK * self.widest + 3 * self.attention * tokens)

    def fitting(self, batch: int, tokens: int, device: torch.device, most: int) -> int:
        """How many elements, from 1 to `most`, may share a backward pass that takes half of what memory is free."""
        free = comfy.model_management.get_free_memory(device)
        return max(1, min(most, int(free / 2 / self.exact_more(batch, tokens))))


def room_behind(network: nn.Module, layer: str, grid: tuple[int, int]) -> Room:
    """What lies behind the cross-attention `layer` of a UNet for a latent of this height and width."""
    grids: dict[nn.Module, tuple[int, int]] = {}
    middle = [] if network.middle_block is None else [network.middle_block]
    for module in (module for block in [*network.input_blocks, *middle, *network.output_blocks] for module in block):
        if isinstance(module, Downsample):
            grid = tuple(-(-side // 2) for side in grid)
        elif isinstance(module, Upsample):
            grid = tuple(2 * side for side in grid)
        grids |= dict.fromkeys(module.modules(), grid)
    grids |= dict.fromkeys(network.out.modules(), grid)
    parts = parts_behind(network, layer)
    behind = [module for part in parts for module in part.modules() if _width(module)]
    sizes = [_width(module) * math.prod(grids[module]) for module in behind]
    weights = sum(p.numel() for module in behind for p in module.parameters(recurse=False))
    attention = cross_attention(network, layer).heads * math.prod(grids[parts[0]])
    norm, *_, conv = network.out
    sums = conv.weight[:, 0].numel() + 2 * norm.num_groups
    return Room(sum(sizes), max(sizes), weights, attention, sums)


def _width(module: nn.Module) -> int:
    """Channels that a layer with weights puts out, 0 for every other module."""
    if not any(True for _ in module.parameters(recurse=False)):
        return 0
    if isinstance(module, nn.LayerNorm):
        return module.normalized_shape[0]
    return next(getattr(module, n) for n in ("out_features", "out_channels", "num_channels") if hasattr(module, n))
