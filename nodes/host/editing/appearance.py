"""The picture that gives its appearance to the target of a twin run, whatever the method: `core.methods.appearance`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.methods.appearance import COARSEST, AppearanceTransfer, with_statistics
from ...core.methods.masked_latent import blend
from ...core.methods.masking import AttentionMasking, GradientMasking, Masking
from ..attention.model_call import OURS
from ..attention.twin_blocks import APPEARANCE, TARGET, WITHOUT
from ..families.sites import SELF
from ..sampling.changes import Change, SamplerInputs, change_steps
from ..sampling.mask_sources import MaskSource, mask_source
from .editors import EditingProcessor, InstalledEditor, TwinCall
from .layers import Layer, self_attention_layers
from .local_blend import BlockState
from .paths import Path
from .twin_texts import own_list

WRAPPER_KEY = OURS + "appearance"


@dataclass(frozen=True)
class AppearancePicture:
    """A picture, and where in it and in the target something is taken over.

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

    def mask_sources(self, patcher: ModelPatcher) -> dict[str, MaskSource]:
        """What finds the masks, by the blocks that they are of; what it reads is captured on `patcher`."""
        masks = {}
        for block, masking in ((TARGET, self.target), (APPEARANCE, self.own)):
            if isinstance(masking, AttentionMasking) and block == APPEARANCE:
                masking = replace(masking, positive=self.prompt)
            if masking is not None:
                masks[block] = mask_source(masking, patcher, block)
        return masks


@dataclass(frozen=True)
class InstalledAppearance:
    """An editor (`editors.InstalledEditor`) that brings a picture, which is sampled beside source and target.

    layers: where something is taken over. masks: see `AppearancePicture.mask_sources`.
    """

    method: AppearanceTransfer
    picture: AppearancePicture
    layers: tuple[Layer, ...]
    masks: Mapping[str, MaskSource] = field(default_factory=dict)

    name: ClassVar[str]
    # Whether masks are asked for in every model call, not for the statistics alone.
    reads_masks: ClassVar[bool] = False

    @classmethod
    def on(
        cls, patcher: ModelPatcher, method: AppearanceTransfer, picture: AppearancePicture, wanted: str
    ) -> InstalledAppearance:
        """The editor for runs of `patcher`, see `Editor`. wanted: the layers; AUTO for the fine ones of the decoder."""
        layers = tuple(self_attention_layers(patcher, wanted, _fine, cls.name))
        made = cls(method, picture, layers)
        return replace(made, masks=picture.mask_sources(patcher)) if APPEARANCE in made.blocks else made

    @property
    def blocks(self) -> tuple[str, ...]:
        """What it needs beside source and target, see `TwinBlocks`; none where it does nothing.

        A guidance of 1 needs no prediction without the editor.
        """
        method = self.method
        takes = bool(self.layers) and method.takes
        beside = (APPEARANCE,) if takes or method.schedule.statistics < 1 else ()
        return (*beside, WITHOUT) if takes and method.guidance != 1 else beside

    def chosen(self, texts: Mapping[Any, tuple[Tensor, Tensor]]) -> frozenset:
        """See `InstalledEditor`: all, whatever the prompts say."""
        return frozenset(texts)

    def claims(self, step: int, steps: int) -> frozenset[tuple[str, str]]:
        """See `InstalledEditor`."""
        return frozenset((SELF, name) for name in self.taken(step, steps))

    def processors(self, call: TwinCall, chosen: frozenset) -> list[EditingProcessor]:
        """See `InstalledEditor`."""
        raise NotImplementedError

    def give_statistics(self, patcher: ModelPatcher, state: BlockState) -> None:
        """Make every sampler that runs `patcher` (changed in place: pass a clone) give the target the statistics.

        state: gives the picture's state.
        """

        def begin(inputs: SamplerInputs) -> _Statistics:
            steps = self.method.schedule.normalised(inputs.steps)
            return _Statistics(steps, self.masks, state, inputs.denoise_mask, self.reads_masks)

        change_steps(patcher, WRAPPER_KEY, begin)

    def led_on(self, edited: Tensor, plain: Tensor, step: int, steps: int) -> Tensor:
        """The prediction that the sampler gets of that with the editor and that without."""
        return plain + self.method.led_on(step, steps) * (edited - plain) if self.taken(step, steps) else edited

    def taken(self, step: int, steps: int) -> dict[str, str]:
        """Of which picture each layer takes something at a step, by its name."""
        found = {layer.name: self.method.taken_from(step, steps, layer.coarser) for layer in self.layers}
        return {name: picture for name, picture in found.items() if picture is not None}


def _fine(layers: list[Layer]) -> list[Layer]:
    """Those of the decoder on the latent's grid and on the next coarser one."""
    return [layer for layer in layers if layer.decodes and layer.coarser <= COARSEST]


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
    """Gives one run's target the statistics.

    free: 1 where the latent may change, or None. always: whether masks are read in every call, not before a step alone.
    """

    all_blocks = True

    def __init__(
        self,
        steps: tuple[int, ...],
        masks: Mapping[str, MaskSource],
        state: BlockState,
        free: Tensor | None,
        always: bool,
    ) -> None:
        super().__init__(steps)
        self._masks = masks
        self._state = state
        self._free = free
        self._always = always
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
            source.before_call(last or self._always, more)
