"""How much memory gradients take through what a network computes after one of its attention layers."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management
import torch

# Measured with the allocator's own record (torch.profiler) of SD 1.x, SD 2.x and SDXL networks of two widths, three
# sizes and three layers each, and rounded up; tests/host/autograd/test_memory.py repeats it. Measured
# values in brackets: what autograd keeps, in multiples of all layers' outputs (1.1 to 1.4); what one backward pass
# takes (2.1 to 3.0) and what the structured solver's closed forms take (5.1), in multiples of the largest output; how
# many copies of each probability there are; without copied weights, how many copies of the largest weight (2.0); and
# with repeated blocks, the shares of what these keep (0.3 to 0.8) and of the largest block's weights (1.3).
_KEPT, _BACK, _CLOSED, _HELD = 1.45, 3.1, 5.3, 8.0
_AT_USE, _REPEATED, _REPEATED_WEIGHTS = 2.1, 1.05, 1.35


@dataclass(frozen=True)
class GradientMemory:
    """How many numbers the layers that gradients pass hold for one latent.

    outputs: of all layers with weights together. widest: the largest output. weights: in all of them;
    largest: in one of them. repeated: what enters the blocks that can be repeated, the outputs of layers outside of
    them and those of the largest block. repeated_weights: of one block. attention: heads times query positions of the
    site. sums: how many the structured solver makes of each probability's derivative. number: bytes of a number.
    """

    outputs: int
    widest: int
    weights: int
    largest: int
    repeated: int
    repeated_weights: int
    attention: int
    sums: int
    number: int = 4

    def structured(self, batch: int, tokens: int) -> float:
        """Bytes that the structured solver takes."""
        numbers = _KEPT * self.outputs + _CLOSED * self.widest + (self.sums + _HELD) * self.attention * tokens
        return self.number * (batch * numbers + self.weights)

    def exact(self, batch: int, tokens: int, together: int) -> float:
        """Bytes that backward passes of `together` elements at once take."""
        kept = _KEPT * self.outputs + _HELD * self.attention * tokens
        return self.number * (batch * kept + self.weights) + together * self.exact_more(batch, tokens)

    def exact_more(self, batch: int, tokens: int) -> float:
        """Bytes that each element of a backward pass takes."""
        return self.number * batch * (_BACK * self.widest + 3 * self.attention * tokens)

    def once(self, batch: int, tokens: int, repeat: bool = False) -> float:
        """Bytes that a single pass takes, which copies no weights; with `repeat` it runs the blocks again."""
        kept, weights = _KEPT * self.outputs + _BACK * self.widest, _AT_USE * self.largest
        if repeat:
            kept, weights = _REPEATED * self.repeated, _REPEATED_WEIGHTS * self.repeated_weights
        return self.number * (batch * (kept + _HELD * self.attention * tokens) + weights)

    def fitting(self, batch: int, tokens: int, device: torch.device, most: int) -> int:
        """How many elements, from 1 to `most`, may share a backward pass that takes half of the free memory."""
        free = comfy.model_management.get_free_memory(device)
        return max(1, min(most, int(free / 2 / self.exact_more(batch, tokens))))
