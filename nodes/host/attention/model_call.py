"""One model call of a sampler, as it is being captured."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...core.attention.aggregate import PlacedMaps, compose, resize
from ..compiled import uncompiled
from .positives import Positives, PromptRows

# The names of everything that this pack installs on models and puts into their options begin like this.
OURS = "explainable_latents."

# In transformer_options: this call is not a step of the sampler; it is made for a mask.
ASIDE = OURS + "aside"
# What ASIDE is where the call predicts what a step would: it is edited as that is.
EDITED = "edited"

# In a conditioning: its text was exchanged while the sampler ran, so the words of the first one are not in it.
EXCHANGED = OURS + "exchanged"


# In transformer_options: what the host's EasyCache or LazyCache knows of a run's steps, by which it skips some of them.
_STEP_CACHE = "easycache"


def aside(extra_args: dict, how: object = True) -> dict:
    """A sampler's `extra_args`, marked for a model call that is not one of its steps. how: EDITED or True.

    The host's caches of steps neither skip such a call nor take it for a step: they get an empty copy that does not act
    yet, as for each run before it begins.
    """
    options = extra_args.get("model_options", {})
    marked = {**options.get("transformer_options", {}), ASIDE: how}
    if _STEP_CACHE in marked:
        marked[_STEP_CACHE] = marked[_STEP_CACHE].clone()
    return {**extra_args, "model_options": {**options, "transformer_options": marked}}


@dataclass(frozen=True)
class Refined:
    """In place of a layer's name: what refining so often made of its maps; "" for the sum of all layers."""

    power: int
    layer: str = ""


@dataclass
class ModelCall:
    """One model call of a sampler.

    index: of the positive list while the host evaluates it, else None. evaluated: whether that has happened. device: of
    the sampler's state. maps: per layer those of each conditioning, on the device where the network ran: the host may
    have copies of it on several; under `Refined` the refined ones of each power, if they were asked for. grids: of the
    layers.
    """

    positives: Positives
    batch: int
    grid: tuple[int, int]
    device: torch.device
    sigma: float
    step: int | None
    index: int | None = None
    evaluated: bool = False
    maps: dict[str | Refined, list[tuple[Tensor, PromptRows]]] = field(default_factory=dict)
    grids: dict[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether no layer's frame is shared by several conditionings."""
        return all(len(each) == 1 and each[0][1].is_whole(self.grid) for each in self.maps.values())

    def layers(self) -> dict[str | Refined, Tensor]:
        """Every layer's map: on its own grid, or on the latent's where several conditionings share the frame.

        On `device`.
        """
        if self.whole:
            return {name: each[0][0].to(self.device) for name, each in self.maps.items()}
        return {
            name: compose([self._placed(maps, row) for maps, row in each], self.grid)
            for name, each in self.maps.items()
        }

    def _placed(self, maps: Tensor, row: PromptRows) -> PlacedMaps:
        weight = row.weight.to(self.device) if isinstance(row.weight, Tensor) else row.weight
        if isinstance(weight, Tensor) and len(weight) > 1:
            weight = weight.repeat_interleave(maps.shape[1] // len(weight), dim=0)  # of every frame
        return PlacedMaps(resize(maps, row.size).to(self.device), row.offset, weight)


@contextmanager
def evaluating(call: ModelCall | None, conds: list) -> Iterator[None]:
    """Inside the block `call.index` is that of the positive list among `conds`, the lists the host evaluates now.

    The list is not found by its place: guiders order the lists differently, and guidance nodes evaluate the positive or
    the negative list alone a second time (PAG, SAG). Only the first evaluation of the guider's positive list counts.
    It runs uncompiled, so that its attention can be read.
    """
    if call is not None and not call.evaluated:
        call.index = call.positives.among(conds)
        call.evaluated = call.index is not None
    try:
        with uncompiled() if call is not None and call.index is not None else nullcontext():
            yield
    finally:
        if call is not None:
            call.index = None


def step_of(sigma: float, model_options: dict) -> int | None:
    """Index of the sampler's step that evaluates at `sigma`: the last one whose noise level is not below it."""
    sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
    if sigmas is None:
        return None
    return max(0, int((sigmas.float().cpu() >= sigma * (1 - 1e-5)).sum()) - 1)


def prediction_scale(sampling: Any, sigma: Tensor) -> float:
    """d z / d output: the denoised prediction z is an affine function of the network's output (eps, v, flow).

    sampling: the host's `model_sampling`. The finished latent (sigma 0) is its own prediction; there the smallest noise
    level counts.
    """
    one = sigma.flatten()[:1].clamp_min(float(sampling.sigma_min))
    unit = torch.ones((1, 1, 1, 1), device=sigma.device)
    zero = torch.zeros_like(unit)
    change = sampling.calculate_denoised(one, unit, zero) - sampling.calculate_denoised(one, zero, zero)
    return float(change)


def no_attention(words: Sequence[str], where: str, reasons: Sequence[str]) -> ValueError:
    """The error that no attention to the words was seen. where: in which model call or run.

    reasons: possible causes, the most certain first.
    """
    return ValueError(f"no attention to {', '.join(words)} was seen {where}: {'; or '.join(reasons)}")
