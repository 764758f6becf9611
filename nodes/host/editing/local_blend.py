"""LocalBlend: after each step of a twin run the target becomes the source outside a mask (Hertz et al. 2022)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.masked_latent import blend
from ...core.methods.masking import AttentionMasking, GradientMasking, Masking
from ...core.methods.prompt_to_prompt import Window
from ..attention.model_call import OURS
from ..attention.twin_blocks import SOURCE, TARGET, TwinBlocks
from ..sampling.changes import Change, SamplerInputs, change_steps
from ..sampling.mask_sources import MaskSource, mask_source

WRAPPER_KEY = OURS + "local_blend"

# Gives, for a block, a sampler's state of all blocks and its noise level, the blocks and that block's state.
BlockState = Callable[[str, Tensor, Tensor], tuple[TwinBlocks, Tensor]]


@dataclass(frozen=True)
class LocalBlend:
    """Where the target may differ from the source: the union of a mask on the target and one on the source.

    target, source: how they are found, each in its own picture's attention; None for none. start: the share of the run
    after which it begins. Raises ValueError without a mask, for gradients (which would need one more call at every
    step), and for a start that is no share.
    """

    target: Masking | None
    source: Masking | None = None
    start: float = 0.2

    def __post_init__(self) -> None:
        given = [each for each in (self.target, self.source) if each is not None]
        if not given:
            raise ValueError("there is no mask to blend with: connect Mask from Attention or Mask from Image")
        if any(isinstance(each, GradientMasking) for each in given):
            raise ValueError(
                "Twin Sampling looks for its masks after every step, and Mask from Abs-Grad-SAM would take a model "
                "call with gradients for each: connect Mask from Attention or Mask from Image"
            )
        Window(self.start)

    def install(self, patcher: ModelPatcher, source_prompt: list, state: BlockState) -> None:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) blend.

        source_prompt: the CONDITIONING whose attention the source's mask is made from.
        """
        sources = []
        for block, masking in ((TARGET, self.target), (SOURCE, self.source)):
            if masking is None:
                continue
            if isinstance(masking, AttentionMasking) and block == SOURCE:
                masking = replace(masking, positive=source_prompt)
            sources.append((block, mask_source(masking, patcher, block)))

        def begin(inputs: SamplerInputs) -> _Blending:
            first = max(1, int(self.start * inputs.steps))
            return _Blending(tuple(range(first, inputs.steps + 1)), sources, state, inputs.denoise_mask)

        change_steps(patcher, WRAPPER_KEY, begin)


class _Blending(Change):
    """Blends one run. free: 1 where the latent may change, or None."""

    all_blocks = True

    def __init__(
        self, steps: tuple[int, ...], sources: Sequence[tuple[str, MaskSource]], state: BlockState, free: Tensor | None
    ) -> None:
        super().__init__(steps)
        self._sources = sources
        self._state = state
        self._free = free
        self.before_call(last=False, more=bool(steps))

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """See `Change`. Raises ValueError as the sources of the masks."""
        blocks, source = self._state(SOURCE, x, sigma)
        target = x[blocks.rows(TARGET)]
        masks = [find(x[blocks.rows(block)], predict)[0] for block, find in self._sources]
        union = torch.stack(torch.broadcast_tensors(*masks)).amax(0).to(x).unsqueeze(1)
        blended = blend(union, target, source.to(x))
        if self._free is not None:
            blended = blend(self._free, blended, target)
        return blocks.with_blocks(x, {TARGET: blended})

    def before_call(self, last: bool, more: bool) -> None:
        """See `Change`."""
        for _, source in self._sources:
            source.before_call(last, more)
