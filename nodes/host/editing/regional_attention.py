"""Prompts for parts of the picture, in one model call with the base prompt, see `core.methods.regional_attention`.

Everything is installed through the host's wrappers:

  OUTER_SAMPLE     a run begins and ends
  PREDICT_NOISE    one model call of the sampler: where its regions are
  CALC_COND_BATCH  which of the guider's lists is the positive one
  APPLY_MODEL      the network itself: a processor mixes the regions' attention into that of the positive rows

`region_prompts` reads which text is where, `region_rows` has the processor.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ...core.methods.masking import Masking
from ...core.methods.regional_attention import shares
from ..attention.model_call import ASIDE, OURS
from ..attention.override import processing
from ..attention.positives import area_of
from ..attention.twin_blocks import TARGET, twin_blocks
from ..compiled import as_written, uncompiled
from ..families.family import Family, family_of
from ..families.offers import EDITING
from ..families.sites import NetworkCall
from ..ui.running_node import show_on_running_node
from .editors import EditedCall
from .region_prompts import Region, read_regions
from .region_rows import NAME, RegionRows, RegionsAttention

log = logging.getLogger("explainable_latents")

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
    if not regions or base == 1:
        return
    regional = _Regional(regions, base, family)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, regional.around_run),
        (WrappersMP.PREDICT_NOISE, regional.around_step),
        (WrappersMP.CALC_COND_BATCH, regional.around_batch),
        (WrappersMP.APPLY_MODEL, regional.around_model),
    ):
        patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)


@dataclass
class _Step:
    """One model call of a sampler.

    texts: contexts of the regions that are there. shares: of the base prompt and of these, [1+R,batch,h,w] on the CPU.
    positive: the guider's positive conditionings by id. lists: which of the lists that the host evaluates hold them.
    twin: whether the batch is that of a twin run.
    """

    texts: list[Tensor]
    shares: Tensor
    positive: dict[Any, dict]
    twin: bool
    lists: frozenset[int] = frozenset()


class _Regional:
    """What is installed on the model."""

    def __init__(self, regions: Sequence[Region], base: float, family: Family) -> None:
        self._regions = regions
        self._base = base
        self._family = family
        self._told: set[str] | None = None
        self._step: _Step | None = None

    def around_run(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE wrapper."""
        outer, self._told = self._told, set()
        try:
            return executor(*args, **kwargs)
        finally:
            self._told = outer

    def around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, *args: Any, **kwargs: Any
    ) -> Tensor:
        """PREDICT_NOISE wrapper; `executor.class_obj` is the guider. A call that is made for a mask has no regions."""
        aside = ASIDE in model_options.get("transformer_options", {})
        wanted = self._told is not None and not aside
        outer, self._step = self._step, self._begin(executor.class_obj, x, timestep, model_options) if wanted else None
        try:
            return executor(x, timestep, model_options, *args, **kwargs)
        finally:
            self._step = outer

    def around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, *args: Any, **kwargs: Any
    ) -> list[Tensor]:
        """CALC_COND_BATCH wrapper: find the positive list; another node may evaluate a changed copy of it."""
        if self._step is not None:
            own = list(self._step.positive)
            found = (i for i, each in enumerate(conds) if each and [cond.get("uuid") for cond in each] == own)
            self._step.lists = frozenset(found)
        return executor(model, conds, *args, **kwargs)

    def around_model(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        t: Tensor,
        c_concat: Tensor | None,
        c_crossattn: Tensor | None,
        control: dict | None,
        transformer_options: dict,
        **conds: Any,
    ) -> Tensor:
        """APPLY_MODEL wrapper: mix the regions' attention into the rows of the positive conditionings."""
        parts = [] if self._step is None else self._parts(self._step, x, transformer_options)
        if not parts:
            return executor(x, t, c_concat, c_crossattn, control, transformer_options, **conds)
        for text in self._step.texts:
            if text.shape[-1] != c_crossattn.shape[-1]:
                raise ValueError(
                    f"a region's prompt is encoded in {text.shape[-1]} numbers for each token, the sampler's in "
                    f"{c_crossattn.shape[-1]}: encode both with the CLIP of this model"
                )
        network = as_written(executor.class_obj.diffusion_model)
        layers = self._family.key_layers(network), self._family.value_layers(network)
        call = EditedCall(len(x), c_crossattn.shape[1], self._warn)
        mixing = RegionsAttention(call, self._step.texts, parts, layers, exchanges=not self._step.twin)
        called = NetworkCall(network, x.shape, c_crossattn.shape[1])
        with uncompiled(), processing(transformer_options, self._family, [mixing], called) as options:
            out = executor(x, t, c_concat, c_crossattn, control, options, **conds)
        mixing.finish(network)
        return out

    def _begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> _Step | None:
        """Where the regions are at this noise level; None where there are none."""
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
        return _Step(texts, shares(torch.stack(masks), self._base), positive, blocks is not None)

    def _parts(self, step: _Step, x: Tensor, options: dict) -> list[RegionRows]:
        """The positive conditionings of a model call on `x` [rows,C,h,w]."""
        kinds, batch, grid = options["cond_or_uncond"], step.shares.shape[1], tuple(step.shares.shape[-2:])
        if len(x) != batch * len(kinds):
            self._warn(
                f"the network was called with {len(x)} rows instead of {len(kinds)} conditionings of {batch} pictures; "
                f"such calls have no regions ({NAME})"
            )
            return []
        parts = []
        for j, (kind, uuid) in enumerate(zip(kinds, options["uuids"], strict=True)):
            if kind not in step.lists or uuid not in step.positive:
                continue
            (h, w), (top, left) = area_of(step.positive[uuid], grid)
            if tuple(x.shape[-2:]) != (h, w):
                self._warn(
                    f"the network saw a latent of {tuple(x.shape[-2:])} instead of {h, w}: another node cuts it into "
                    f"tiles; such calls have no regions ({NAME})"
                )
                return []
            seen = step.shares[..., top : top + h, left : left + w]
            parts.append(RegionRows(slice(j * batch, (j + 1) * batch), seen))
        return parts

    def _warn(self, message: str) -> None:
        """Tell the user, once in a run."""
        if message not in self._told:
            self._told.add(message)
            log.warning(message)
            show_on_running_node(message)
