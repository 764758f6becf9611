"""Prompts for parts of the picture, in one model call with the base prompt, see `core.methods.regional_attention`.

`positive_rows` runs it in every run of a model, `region_prompts` reads which text is where, `region_rows` mixes the
regions' attention into that of the positive rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor, nn

from ...core.methods.masking import Masking
from ...core.methods.regional_attention import shares
from ..attention.model_call import OURS
from ..attention.positives import area_of
from ..attention.twin_blocks import TARGET, twin_blocks
from ..families.family import Family, family_of
from ..families.offers import EDITING
from .editors import EditedCall, EditingProcessor
from .positive_rows import EditedStep, PositiveRows
from .region_prompts import Region, read_regions
from .region_rows import NAME, RegionRows, RegionsAttention

WRAPPER_KEY = OURS + "regional_attention"


def install_regions(
    patcher: ModelPatcher, conditioning: list, ratios: str = "", base: float = 0.0, masking: Masking | None = None
) -> None:
    """Give parts of every picture that a sampler makes with `patcher` prompts of their own.

    patcher: changed in place: pass a clone; of regions that were installed before, these lie on top. conditioning,
    ratios, masking: see `read_regions`. base: the share that the sampler's prompt keeps inside the regions, 0 to 1.
    Raises ValueError as `read_regions`, and for a model that no family knows whose attention can be edited.
    """
    if not 0 <= base <= 1:
        raise ValueError(f"base_share {base} is no share: give 0 (the regions' prompts alone) to 1 (off)")
    family = family_of(patcher, EDITING)
    regions = read_regions(conditioning, ratios, masking, patcher)
    if regions and base < 1:
        _Regional(regions, base, family).install(patcher, WRAPPER_KEY)


@dataclass
class _Step(EditedStep):
    """See `EditedStep`.

    positive: the conditionings by id. texts: contexts of the regions that are there. shares: of the base prompt and of
    these, [1+R,batch,h,w] on the CPU. twin: whether the batch is that of a twin run.
    """

    positive: Mapping[Any, dict]
    texts: Sequence[Tensor]
    shares: Tensor
    twin: bool


class _Regional(PositiveRows):
    """See `PositiveRows`."""

    def __init__(self, regions: Sequence[Region], base: float, family: Family) -> None:
        super().__init__(NAME, family)
        self._regions = regions
        self._base = base

    def begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> _Step | None:
        """See `PositiveRows`: where the regions are at this noise level; None where there are none."""
        blocks, sampling = twin_blocks(model_options), guider.inner_model.model_sampling
        sigma = float(timestep.flatten()[0])
        state = x if blocks is None else x[blocks.rows(TARGET)]
        texts, masks = [], []
        for region in self._regions:
            start, end = (float(sampling.percent_to_sigma(share)) for share in (region.start, region.end))
            mask = region.place.known(state) if end <= sigma <= start else None
            if mask is not None:
                texts.append(region.text)
                mask = region.strength * mask.float().cpu()
                masks.append(mask.repeat(len(x) // len(mask), 1, 1))
        if not masks:
            return None
        positive = {cond["uuid"]: cond for cond in guider.conds.get("positive") or []}
        of_places = shares(torch.stack(masks), self._base)
        return _Step(of_places.shape[1], positive, texts, of_places, blocks is not None)

    def processor(
        self, step: _Step, call: EditedCall, x: Tensor, context: Tensor, network: nn.Module, options: dict
    ) -> EditingProcessor | None:
        """See `PositiveRows`. Raises ValueError for a prompt of another kind of model."""
        parts = self._parts(step, x, options)
        if not parts:
            return None
        for text in step.texts:
            if text.shape[-1] != context.shape[-1]:
                raise ValueError(
                    f"a region's prompt is encoded in {text.shape[-1]} numbers for each token, the sampler's in "
                    f"{context.shape[-1]}: encode both with the CLIP of this model"
                )
        layers = self.family.key_layers(network), self.family.value_layers(network)
        return RegionsAttention(call, step.texts, parts, layers, exchanges=not step.twin)

    def _parts(self, step: _Step, x: Tensor, options: dict) -> list[RegionRows]:
        """The positive conditionings of a model call on `x` [rows,C,h,w]; none where another node cuts it."""
        parts, grid = [], tuple(step.shares.shape[-2:])
        for uuid, rows in self.conditionings(step, len(x), options):
            (h, w), (top, left) = area_of(step.positive[uuid], grid)
            if tuple(x.shape[-2:]) != (h, w):
                self.warn(
                    f"the network saw a latent of {tuple(x.shape[-2:])} instead of {h, w}: another node cuts it into "
                    f"tiles; such calls have no regions ({NAME})"
                )
                return []
            parts.append(RegionRows(rows, step.shares[..., top : top + h, left : left + w]))
        return parts
