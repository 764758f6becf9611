"""Find the mask that an EL_MASKING describes, at a manipulated step of a running sampler."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...core.maps.masks import Shaping, shape_mask
from ...core.maps.saliency import Saliency
from ...core.methods.masking import (
    CUMULATIVE,
    AttentionMasking,
    GradientMasking,
    ImageMasking,
    Masking,
    PaintedMasking,
)
from ..attention.observer import AttentionCapture, observe
from ..attention.twin_blocks import TARGET
from ..autograd.gradient_probe import GradientProbe
from ..ui.running_node import stop_when_cancelled


class MaskSource:
    """Finds the masks of a model's sampler runs."""

    def __call__(self, x: Tensor, predict: Callable[[], object]) -> tuple[Tensor, Saliency | None]:
        """Return the mask [B or 1,h,w] or [B,C,h,w] for state `x` [B,C,h,w], and the maps that it was made from.

        predict: calls the model on that state.
        """
        raise NotImplementedError

    def known(self, x: Tensor) -> Tensor | None:
        """The mask for state `x`, without a model call of its own; None before the sampler's calls have told it."""
        raise NotImplementedError

    def before_call(self, read_next: bool, read_later: bool) -> None:
        """Prepare for a model call of the sampler.

        read_next: whether a mask may be asked for, or `check` called, right after it. read_later: whether a mask will
        be asked for at any time after it.
        """

    def check(self) -> None:
        """After the first step of a run: raise the ValueError that a manipulated step is bound to raise, if known."""


class AttentionSource(MaskSource):
    """Makes the mask from the attention in the sampler's model call before the step, or in all its calls so far.

    If these have no attention to the subjects, the model is called once more for it: before the first step, and if the
    subjects' prompt was not active in the call before (a timestep range).
    """

    def __init__(self, masking: AttentionMasking, capture: AttentionCapture) -> None:
        self._masking = masking
        self._capture = capture

    def __call__(self, x: Tensor, predict: Callable[[], object]) -> tuple[Tensor, Saliency]:
        """See `MaskSource`. Raises ValueError when the model call showed no attention to the subjects."""
        saliency = self._read()
        if saliency is None:
            saliency = self._capture.ask(predict)
        if saliency is None:
            raise self._capture.nothing_seen(
                "at a manipulated step",
                "their prompt is not active there (a timestep range of its conditioning); or it is not the one that is "
                "connected as positive conditioning, encoded with the CLIP of this model",
            )
        return _shaped(saliency, self._masking.shaping), saliency

    def before_call(self, read_next: bool, read_later: bool) -> None:
        """See `MaskSource`: capture only calls that are read; the others cost nothing and may run compiled."""
        cumulative = self._masking.calls == CUMULATIVE
        self._capture.capture_calls(read_next or (cumulative and read_later))

    def known(self, x: Tensor) -> Tensor | None:
        """See `MaskSource`."""
        saliency = self._read()
        return None if saliency is None else _shaped(saliency, self._masking.shaping)

    def _read(self) -> Saliency | None:
        """The maps of the sampler's calls so far."""
        return self._capture.until_step() if self._masking.calls == CUMULATIVE else self._capture.before_step()

    def check(self) -> None:
        """See `MaskSource`: a word whose map is flat in the first model call has no effect on this model."""
        saliency = self._capture.before_step()
        if saliency is not None:
            _shaped(saliency, self._masking.shaping)


class GradientSource(MaskSource):
    """Makes the mask from the Abs-Grad-SAM of one more model call."""

    def __init__(self, masking: GradientMasking, probe: GradientProbe) -> None:
        self._masking = masking
        self._probe = probe

    def __call__(self, x: Tensor, predict: Callable[[], object]) -> tuple[Tensor, Saliency]:
        """See `MaskSource`; the masks of several layers intersect. Raises ValueError as `GradientProbe.measure`."""
        saliency = self._probe.measure(predict, stop_when_cancelled)
        maps = saliency.maps if self._masking.channels == "each" else saliency.maps.mean(2)
        return _shaped(saliency.with_maps(maps), self._masking.shaping, self._probe.layers), saliency


class ImageSource(MaskSource):
    """Brings a ready-made mask to the latent's size."""

    def __init__(self, masking: ImageMasking) -> None:
        self._mask = masking.mask

    def __call__(self, x: Tensor, predict: Callable[[], object]) -> tuple[Tensor, None]:
        """See `MaskSource`. Raises ValueError when the mask's batch is neither 1 nor the latent's."""
        if self._mask.shape[0] not in (1, x.shape[0]):
            raise ValueError(
                f"{self._mask.shape[0]} masks for a batch of {x.shape[0]} latents: give one for all, or one for each"
            )
        mask = self._mask.to(device=x.device, dtype=torch.float32).unsqueeze(1)
        if mask.shape[-2:] != x.shape[-2:]:
            mask = F.interpolate(mask, size=x.shape[-2:], mode="area")
        return mask[:, 0], None

    def known(self, x: Tensor) -> Tensor:
        """See `MaskSource`."""
        return self(x, lambda: None)[0]


def mask_source(masking: Masking, patcher: ModelPatcher, block: str = TARGET) -> MaskSource:
    """Return the source for `masking`; what it reads is captured on `patcher` (changed in place: pass a clone).

    block: in which block of a twin run attention is read. Raises ValueError for a masking that is painted over: masks
    that change during a step cannot wait for a user.
    """
    if isinstance(masking, PaintedMasking):
        raise ValueError(
            "Paint Mask While Sampling works with KSampler (Masked Latent) and Masked Latent (model patch) only: "
            "connect the masking itself here"
        )
    if isinstance(masking, ImageMasking):
        return ImageSource(masking)
    refining = {"refine": masking.refine, "refine_layers": masking.refine_layers}
    if isinstance(masking, AttentionMasking):
        how = {"layers": masking.layers, "positive": masking.positive, "block": block, **refining}
        capture = observe(patcher, masking.subjects, keep=False, add_up=masking.calls == CUMULATIVE, **how)
        return AttentionSource(masking, capture)
    how = {"layer": masking.layer, "prompt": masking.positive, **refining}
    return GradientSource(masking, GradientProbe(patcher, masking.subjects, masking.polarity, masking.solver, **how))


def _shaped(saliency: Saliency, shaping: Shaping, layers: int = 1) -> Tensor:
    """The mask of saliency, see `shape_mask`."""
    return shape_mask(saliency.maps, shaping, saliency.labels, layers, saliency.spatial_scale)
