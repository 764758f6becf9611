"""Watch a model's cross-attention while any sampler runs it, without changing what it computes.

Everything is installed through the host's wrappers, at the moment the model is called:

  OUTER_SAMPLE     one sampler run begins and ends
  PREDICT_NOISE    one step's model call: which conditionings are the positive ones, which grid, which noise level
  CALC_COND_BATCH  the host's evaluation of that step; later evaluations of the same step (guidance by perturbed
  copies) are not it
  DIFFUSION_MODEL  the network itself: `recorder.Recorder` is put beside its attention
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..core.attention import Piece, aggregate, compose, resize, token_columns
from ..core.saliency import Saliency
from ..core.subjects import Subjects
from .layers import LayerSelection, cross_attention_layers, select_layers
from .recorder import Recorder, Rows

log = logging.getLogger("explainable_latents")

WRAPPER_KEY = "explainable_latents.attention"


@dataclass
class ModelCall:
    """One evaluation of the model by a sampler: which conditionings count, and the maps seen so far."""

    conds: dict[Any, dict]
    positive: list[dict]
    batch: int
    grid: tuple[int, int]
    sigma: float
    step: int | None
    index: int | None = None
    evaluated: bool = False
    pieces: dict[str, list[tuple[Tensor, Rows]]] = field(default_factory=dict)


@dataclass
class Run:
    """What one sampler run left behind: the aggregated map of every model call."""

    saliencies: list[Saliency] = field(default_factory=list)


class AttentionCapture:
    """Handle of an observed model (EL_ATTENTION): filled while a sampler runs, read afterwards.

    subjects: whose attention is captured. It holds sums per subject only, never a whole attention matrix.
    """

    def __init__(self, subjects: Subjects, selection: LayerSelection, start_percent: float, end_percent: float) -> None:
        self.subjects = subjects
        self._tokens = [subjects.positions(i) for i in range(len(subjects.items))]
        self._selection = selection
        self._percent = (start_percent, end_percent)
        self._run: Run | None = None
        self._finished: Run | None = None
        self._call: ModelCall | None = None
        self._warned: set[str] = set()

    def latest(self) -> Saliency | None:
        """Map of the most recent model call (all subjects, B = latent batch, summing to 1 each), None before the
        first one.

        While a sampler runs only that run counts.
        """
        run = self._run or self._finished
        return run.saliencies[-1] if run and run.saliencies else None

    def clear(self) -> None:
        """Forget and release everything that was captured."""
        self._run = self._finished = self._call = None
        self._warned.clear()

    def around_run(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE wrapper: a run that fails or is cancelled leaves nothing behind."""
        outer, self._run = self._run, Run()
        self._warned.clear()
        try:
            samples = executor(*args, **kwargs)
            self._finished = self._run
            return samples
        finally:
            self._run = outer

    def around_step(
        self, executor: WrapperExecutor, x: Tensor, timestep: Tensor, model_options: dict, seed: int | None = None
    ) -> Any:
        """PREDICT_NOISE wrapper: `executor.class_obj` is the guider, which knows the positive conditionings."""
        outer, self._call = self._call, self._begin(executor.class_obj, x, timestep, model_options)
        try:
            out = executor(x, timestep, model_options, seed)
            if self._call is not None and self._run is not None:
                self._finish(self._call, self._run)
            return out
        finally:
            self._call = outer

    def around_batch(
        self, executor: WrapperExecutor, model: Any, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict
    ) -> Any:
        """CALC_COND_BATCH wrapper: find the positive list among `conds`.

        Not its index alone: guiders order the lists as they like, and guidance nodes evaluate the positive or the
        negative alone a second time in the same step (PAG, SAG). Only the first evaluation of the guider's own
        positive list counts.
        """
        call = self._call
        if call is not None and not call.evaluated:
            call.index = next((i for i, cond in enumerate(conds) if cond is call.positive), None)
            call.evaluated = call.index is not None
        try:
            return executor(model, conds, x_in, timestep, model_options)
        finally:
            if call is not None:
                call.index = None

    def around_network(
        self,
        executor: WrapperExecutor,
        x: Tensor,
        timesteps: Tensor,
        context: Tensor,
        y: Tensor | None = None,
        control: dict | None = None,
        transformer_options: dict | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """DIFFUSION_MODEL wrapper: put a recorder beside the attention when rows of this call are the positive
        prompt's."""
        options = transformer_options or {}
        call = self._call
        rows = self._rows(call, x, context, options) if call is not None and call.index is not None else []
        if not rows:
            return executor(x, timesteps, context, y, control, options, **kwargs)
        recorder = Recorder(rows, self._selection, x.shape[0], self._warn)
        out = executor(x, timesteps, context, y, control, recorder.install(options), **kwargs)
        if recorder.grids and not any(layer in self._selection for layer in recorder.grids.items()):
            there = ", ".join(sorted({f"{h}x{w}" for h, w in recorder.grids.values()}))
            raise ValueError(
                f"no cross-attention layer has one of the chosen grids; with this latent there are {there} (height x "
                f"width)"
            )
        for name, maps in recorder.maps.items():
            call.pieces.setdefault(name, []).extend(zip(maps, rows, strict=True))
        return out

    def _begin(self, guider: Any, x: Tensor, timestep: Tensor, model_options: dict) -> ModelCall | None:
        sigma = float(timestep.flatten()[0])
        sampling = guider.inner_model.model_sampling
        start, end = (float(sampling.percent_to_sigma(percent)) for percent in self._percent)
        if not end <= sigma <= start:
            return None
        positive = guider.conds.get("positive") or []
        conds = {cond["uuid"]: cond for cond in positive if "c_crossattn" in cond["model_conds"]}
        if not conds:
            self._warn("the guider of this sampler has no positive text conditioning: no attention is captured")
            return None
        return ModelCall(conds, positive, x.shape[0], tuple(x.shape[-2:]), sigma, _step(sigma, model_options))

    def _rows(self, call: ModelCall, x: Tensor, context: Tensor, options: dict) -> list[Rows]:
        """Where in the network's batch the positive conditionings of the subjects' prompt lie."""
        kinds, uuids = options["cond_or_uncond"], options["uuids"]
        if x.shape[0] != call.batch * len(kinds):
            self._warn(
                f"the network was called with {x.shape[0]} rows where {len(kinds)} conditionings of {call.batch} "
                f"latents were "
                "expected: another node splits the batch in its own way, and this call's attention is not captured"
            )
            return []
        prompt = self._prompt(list(call.conds.values()))
        rows = []
        for j, (kind, uuid) in enumerate(zip(kinds, uuids, strict=True)):
            cond = call.conds.get(uuid)
            if kind != call.index or cond is None or not _same_prompt(cond, prompt):
                continue
            size, offset = _area(cond, call.grid)
            if tuple(x.shape[-2:]) != size:
                self._warn(
                    f"the network saw a latent of {tuple(x.shape[-2:])} where {size} was expected: another node cuts "
                    f"the latent "
                    "into tiles, and this call's attention is not captured"
                )
                continue
            columns = token_columns(self._tokens, context.shape[1], prompt.shape[1]).to(context.device)
            start = j * call.batch
            rows.append(Rows(slice(start, start + call.batch), columns, size, offset, _weight(cond, size, offset)))
        return rows

    def _prompt(self, conds: list[dict]) -> Tensor:
        """Context [1,T,d] of the prompt that the subjects' positions belong to: the first positive one."""
        contexts = [cond["model_conds"]["c_crossattn"].cond for cond in conds]
        others = sum(not _same_prompt(cond, contexts[0]) for cond in conds)
        if others:
            self._warn(
                f"{len(conds)} positive conditionings are combined; attention is captured for the first one's prompt "
                f"only, "
                f"{others} with another prompt are left out"
            )
        return contexts[0]

    def _finish(self, call: ModelCall, run: Run) -> None:
        """Turn the pieces of one model call into its aggregated map."""
        if not call.pieces:
            return
        layers = []
        for pieces in call.pieces.values():
            if len(pieces) == 1 and pieces[0][1].is_whole(call.grid):
                layers.append(pieces[0][0])
            else:
                placed = [Piece(resize(maps, row.size), row.offset, row.weight) for maps, row in pieces]
                layers.append(compose(placed, call.grid))
        maps = aggregate(layers, call.grid)
        run.saliencies.append(Saliency(maps, self.subjects.labels, call.sigma, call.step, call.grid))

    def _warn(self, message: str) -> None:
        """Log a warning once per run, not once per layer and step."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)


def _step(sigma: float, model_options: dict) -> int | None:
    """Index of the sampler's step that evaluates at `sigma`: the last one whose noise level is not below it."""
    sigmas = model_options.get("transformer_options", {}).get("sample_sigmas")
    if sigmas is None:
        return None
    return max(0, int((sigmas.float().cpu() >= sigma * (1 - 1e-5)).sum()) - 1)


def _same_prompt(cond: dict, prompt: Tensor) -> bool:
    """Whether a conditioning holds this prompt's context (its area, strength and step range may differ)."""
    context = cond["model_conds"]["c_crossattn"].cond
    return context.shape == prompt.shape and torch.equal(context.to(prompt), prompt)


def _area(cond: dict, grid: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Size (a, b) and offset (y, x) of a conditioning's area in the latent, cut at the border as the host cuts it."""
    if "area" not in cond:
        return grid, (0, 0)
    a, b, y, x = cond["area"]
    return (min(grid[0] - y, a), min(grid[1] - x, b)), (y, x)


def _weight(cond: dict, size: tuple[int, int], offset: tuple[int, int]) -> Tensor | float:
    """How much a conditioning counts: its strength times its mask, a number or [B or 1,a,b]."""
    strength = float(cond.get("strength", 1.0))
    if "mask" not in cond:
        return strength
    (a, b), (y, x) = size, offset
    return cond["mask"][:, y : y + a, x : x + b].float() * (strength * float(cond.get("mask_strength", 1.0)))


def observe(
    patcher: ModelPatcher,
    subjects: Subjects,
    *,
    layers: str = "all",
    start_percent: float = 0.0,
    end_percent: float = 1.0,
) -> AttentionCapture:
    """Observe the cross-attention of `patcher` (changed in place: pass a clone) for `subjects`.

    layers: see `layers.select_layers`. start_percent, end_percent: the part of the noise schedule that is captured, 0
    at pure noise. Raises ValueError for a model without readable cross-attention, an unknown layer, an empty range or
    subjects without tokens.
    """
    if not 0.0 <= start_percent < end_percent <= 1.0:
        raise ValueError(
            f"start_percent {start_percent} and end_percent {end_percent} must satisfy 0 <= start_percent < "
            f"end_percent <= 1"
        )
    selection = select_layers(cross_attention_layers(patcher), layers)
    capture = AttentionCapture(subjects, selection, start_percent, end_percent)
    for kind, wrapper in (
        (WrappersMP.OUTER_SAMPLE, capture.around_run),
        (WrappersMP.PREDICT_NOISE, capture.around_step),
        (WrappersMP.CALC_COND_BATCH, capture.around_batch),
        (WrappersMP.DIFFUSION_MODEL, capture.around_network),
    ):
        patcher.add_wrapper_with_key(kind, WRAPPER_KEY, wrapper)
    return capture
