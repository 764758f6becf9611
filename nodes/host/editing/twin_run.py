"""One run of a sampler that makes a source and a target picture: what is known while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import comfy.sample
import torch
from torch import Tensor

from ...core.methods.masked_latent import fit_reference
from ..attention.model_call import step_of
from ..attention.positives import area_of
from ..attention.twin_blocks import SOURCE, TARGET, TwinBlocks
from ..sampling.recorded_path import state_on_path
from ..ui.running_node import show_on_running_node
from .editors import PairedRows, TwinCall, check_together
from .shared_noise import SharedNoise

if TYPE_CHECKING:
    from .twin_sampling import Twin

log = logging.getLogger("explainable_latents")

GENERATED, NOISED, RECORDED = SOURCE_PATHS = ("generated", "noised reference", "recorded")


class TwinRun:
    """One run of a sampler along the noise levels `sigmas`, of `steps` steps.

    guider: the host's, with both texts in its conditionings (`texts`, see `joined`). noise: the user's, [B,C,h,w].
    step: of the model call that goes on. positives: which of the lists that the host evaluates in it are the positive
    one. blocks, noise: where source and target are, and what draws their noise. Raises ValueError as the editors'
    `chosen` and `check_together`, as `fit_reference`, and as `Trajectory.check_levels`.
    """

    def __init__(self, twin: Twin, guider: Any, noise: Tensor, seed: int | None, sigmas: Tensor, texts: dict) -> None:
        self.twin = twin
        self.steps = steps = len(sigmas) - 1
        self.step: int | None = None
        self.positives: set[int] = set()
        self.positive = guider.conds["positive"]
        self.blocks = TwinBlocks(len(noise), texts)
        self.noise = SharedNoise((2 * len(noise), *noise.shape[1:]))
        self.chosen = [editor.chosen(texts) for editor in twin.editors]
        check_together(twin.editors, self.chosen, steps)
        self._sampling = guider.inner_model.model_sampling
        self._fill = None
        self._recorded = twin.trajectory if twin.path == RECORDED else None
        if self._recorded is not None:
            self._recorded.check_levels(sigmas.tolist())
            fit_reference(self._recorded.picture, noise)
        self._warned: set[str] = set()
        self._state: Tensor | None = None
        self._conds = {cond["uuid"]: cond for listed in guider.conds.values() for cond in listed or ()}
        if twin.path == NOISED:
            reference = guider.inner_model.process_latent_in(twin.reference.to(noise))
            if torch.count_nonzero(noise) == 0:  # the run continues another one
                fresh = comfy.sample.prepare_noise(torch.empty_like(noise, device="cpu"), seed or 0)
                noise = fresh.to(noise)
            self._fill = noise, fit_reference(reference, noise)

    def source_state(self, x: Tensor, sigma: Tensor) -> Tensor:
        """The source's state in the sampler's `x` [2B,C,h,w] at a noise level."""
        rows = x[self.blocks.rows(SOURCE)]
        if self._recorded is not None:
            return state_on_path(self._recorded, sigma, rows)
        if self._fill is None:
            return rows
        return self._sampling.noise_scaling(sigma.flatten()[0], *self._fill)

    def begin_call(self, x: Tensor, sigma: Tensor, model_options: dict) -> Tensor:
        """Note the step of a model call at a noise level, and return `x` [2B,C,h,w] as the network shall see it."""
        self.step = step_of(float(sigma.flatten()[0]), model_options)
        self._state = x[self.blocks.rows(TARGET)]
        if self._fill is None and self._recorded is None:
            return x
        return torch.cat([self.source_state(x, sigma).to(x), x[self.blocks.rows(TARGET)]])

    def call(self, x: Tensor, context: Tensor, options: dict) -> TwinCall | None:
        """A model call on `x` [rows,C,h,w]; None if its rows are not those of both blocks."""
        kinds, batch = options["cond_or_uncond"], 2 * self.blocks.batch
        if len(x) != batch * len(kinds):
            self.warn(
                f"the network was called with {len(x)} rows instead of {len(kinds)} conditionings of {batch} pictures; "
                "such calls are not edited"
            )
            return None
        pairs = []
        for j, (kind, uuid) in enumerate(zip(kinds, options["uuids"], strict=True)):
            source, target = (
                slice(j * batch + rows.start, j * batch + rows.stop) for rows in map(self.blocks.rows, (SOURCE, TARGET))
            )
            _, corner = area_of(self._conds.get(uuid, {}), tuple(self._state.shape[-2:]))
            pairs.append(PairedRows(source, target, uuid if kind in self.positives else None, corner))
        size = tuple(x.shape[-2:])
        return TwinCall(len(x), context.shape[1], self.warn, self.step, self.steps, pairs, size, self._state)

    def warn(self, message: str) -> None:
        """Tell the user, once in a run."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)
            show_on_running_node(message)


def doubled(tensor: Tensor | None, batch: int) -> Tensor | None:
    """The rows of both blocks; one row for all pictures stays one, and None stays None."""
    return tensor if tensor is None or len(tensor) != batch else torch.cat([tensor, tensor])


def of_target(callback: Callable | None, blocks: TwinBlocks) -> Callable | None:
    """The sampler's callback, which sees the target alone."""
    if callback is None:
        return None
    rows = blocks.rows(TARGET)

    def see(step: int, denoised: Tensor, x: Tensor, *args: Any) -> Any:
        return callback(step, denoised[rows], x[rows], *args)

    return see
