"""The picture that gives its appearance to the target of a twin run, whatever the method: `core.methods.appearance`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.appearance import Schedule, with_statistics
from ...core.methods.masked_latent import blend
from ...core.methods.masking import AttentionMasking, GradientMasking, Masking
from ..attention.model_call import OURS
from ..attention.twin_blocks import APPEARANCE, TARGET
from ..sampling.changes import Change, SamplerInputs, change_steps
from ..sampling.mask_sources import MaskSource, mask_source
from .editors import InstalledEditor
from .local_blend import BlockState
from .paths import Path
from .twin_texts import own_list

WRAPPER_KEY = OURS + "appearance"


@dataclass(frozen=True)
class AppearancePicture:
    """A picture, and where in it and in the target statistics are of.

    prompt: its CONDITIONING. path: what it is at each noise level. target, own: where the thing is in the target and in
    the picture, each found in its own attention; None for all of it. Raises ValueError as `own_list`, and for gradients
    (which would need one more call at every step).
    """

    prompt: list
    path: Path
    target: Masking | None = None
    own: Masking | None = None

    def __post_init__(self) -> None:
        own_list(self.prompt, APPEARANCE)
        if any(isinstance(each, GradientMasking) for each in (self.target, self.own)):
            raise ValueError(
                "the appearance's statistics are given after every step, and Mask from Abs-Grad-SAM would take a model "
                "call with gradients for each: connect Mask from Attention or Mask from Image"
            )

    def give_statistics(self, patcher: ModelPatcher, schedule: Schedule, state: BlockState) -> None:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) give the target its statistics.

        schedule: says when. state: gives the picture's state.
        """
        masks = {}
        for block, masking in ((TARGET, self.target), (APPEARANCE, self.own)):
            if isinstance(masking, AttentionMasking) and block == APPEARANCE:
                masking = replace(masking, positive=self.prompt)
            if masking is not None:
                masks[block] = mask_source(masking, patcher, block)

        def begin(inputs: SamplerInputs) -> _Statistics:
            return _Statistics(schedule.normalised(inputs.steps), masks, state, inputs.denoise_mask)

        change_steps(patcher, WRAPPER_KEY, begin)


class InstalledAppearance(InstalledEditor, Protocol):
    """An editor that brings a picture which is sampled beside source and target.

    picture: that. blocks: what it needs beside source and target, see `TwinBlocks`; none where it does nothing.
    """

    picture: AppearancePicture
    blocks: tuple[str, ...]

    def give_statistics(self, patcher: ModelPatcher, state: BlockState) -> None:
        """See `AppearancePicture`."""

    def led_on(self, edited: Tensor, plain: Tensor, step: int, steps: int) -> Tensor:
        """The prediction that the sampler gets of that with the editor and that without."""


def appearance_of(editors: Sequence[InstalledEditor]) -> InstalledAppearance | None:
    """The editor that brings a picture, if any. Raises ValueError for two."""
    found = [each for each in editors if hasattr(each, "picture")]
    if len(found) > 1:
        raise ValueError(
            f"{' and '.join(each.name for each in found)} each bring a picture that gives its appearance, but a run "
            "can have one: connect one of them"
        )
    return found[0] if found else None


class _Statistics(Change):
    """Gives one run's target the statistics. free: 1 where the latent may change, or None."""

    all_blocks = True

    def __init__(
        self, steps: tuple[int, ...], masks: Mapping[str, MaskSource], state: BlockState, free: Tensor | None
    ) -> None:
        super().__init__(steps)
        self._masks = masks
        self._state = state
        self._free = free
        self.before_call(last=False, more=bool(steps))

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Callable[[], Tensor]) -> Tensor:
        """See `Change`. Raises ValueError as the sources of the masks."""
        blocks, appearance = self._state(APPEARANCE, x, sigma)
        target = x[blocks.rows(TARGET)]
        inside = {
            block: (find(x[blocks.rows(block)], predict)[0] > 0.5).unsqueeze(1).to(x.device)
            for block, find in self._masks.items()
        }
        changed = with_statistics(target, appearance.to(x), inside.get(TARGET), inside.get(APPEARANCE))
        if self._free is not None:
            changed = blend(self._free, changed, target)
        return blocks.with_blocks(x, {TARGET: changed})

    def before_call(self, last: bool, more: bool) -> None:
        """See `Change`."""
        for source in self._masks.values():
            source.before_call(last, more)
