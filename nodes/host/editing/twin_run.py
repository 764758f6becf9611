"""One run of a sampler that makes a target and pictures beside it: what is known while it goes on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..attention.model_call import step_of
from ..attention.positives import area_of
from ..attention.twin_blocks import APPEARANCE, SOURCE, TARGET, WITHOUT, TwinBlocks
from ..ui.running_node import show_on_running_node
from .appearance import InstalledAppearance
from .editors import InstalledEditor, PairedRows, TwinCall, check_together
from .shared_noise import SharedNoise

if TYPE_CHECKING:
    from .twin_sampling import Twin

log = logging.getLogger("explainable_latents")


class TwinRun:
    """One run of a sampler along the noise levels `sigmas`, of `steps` steps.

    guider: the host's, with all texts in its conditionings (`texts`, see `joined`). noise: the user's, [B,C,h,w].
    appearance: the editor that brings a further picture, if any. step: of the model call that goes on. positives: which
    of the lists that the host evaluates in it are the positive one. blocks, noise: where the pictures are, and what
    draws their noise. Raises ValueError as the editors' `chosen` and `check_together`, and as `Path.begin`.
    """

    def __init__(
        self,
        twin: Twin,
        appearance: InstalledAppearance | None,
        guider: Any,
        noise: Tensor,
        seed: int | None,
        sigmas: Tensor,
        texts: dict,
    ) -> None:
        self.steps = steps = len(sigmas) - 1
        self.step: int | None = None
        self.positives: set[int] = set()
        self.positive = guider.conds["positive"]
        self.blocks = blocks = TwinBlocks(len(noise), texts, blocks_of(appearance))
        self.noise = SharedNoise((blocks.size, *noise.shape[1:]), len(blocks.names))
        pairs = {uuid: each[:2] for uuid, each in texts.items()}
        self.chosen = [editor.chosen(pairs) for editor in twin.editors]
        check_together(twin.editors, self.chosen, steps)
        self._appearance = appearance
        paths = {SOURCE: twin.way()} | ({APPEARANCE: appearance.picture.path} if APPEARANCE in blocks.names else {})
        self._given = {
            block: state
            for block, path in paths.items()
            if (state := path.begin(guider, noise, seed, sigmas)) is not None
        }
        self._warned: set[str] = set()
        self._state: Tensor | None = None
        self._conds = {cond["uuid"]: cond for listed in guider.conds.values() for cond in listed or ()}

    def state_of(self, block: str, x: Tensor, sigma: Tensor) -> Tensor:
        """A block's state in the sampler's `x` [blocks·B,C,h,w] at a noise level."""
        rows = x[self.blocks.rows(block)]
        return self._given[block](rows, sigma).to(rows) if block in self._given else rows

    def begin_call(self, x: Tensor, sigma: Tensor, model_options: dict) -> Tensor:
        """Note the step of a model call at a noise level, and return `x` as the network shall see it."""
        self.step = step_of(float(sigma.flatten()[0]), model_options)
        self._state = target = x[self.blocks.rows(TARGET)]
        made = {block: self.state_of(block, x, sigma) for block in self._given}
        return self.blocks.with_blocks(x, made | ({WITHOUT: target} if WITHOUT in self.blocks.names else {}))

    def end_call(self, predicted: Tensor) -> Tensor:
        """The model's prediction [blocks·B,C,h,w] as the sampler shall see it: the target's is led on."""
        if WITHOUT not in self.blocks.names or self.step is None:
            return predicted
        edited, plain = (predicted[self.blocks.rows(block)] for block in (TARGET, WITHOUT))
        made = self._appearance.led_on(edited, plain, self.step, self.steps)
        # its state goes along with the target's, so that it stays one that a sampler may have
        return self.blocks.with_blocks(predicted, {TARGET: made, WITHOUT: made})

    def call(self, x: Tensor, context: Tensor, options: dict) -> TwinCall | None:
        """A model call on `x` [rows,C,h,w]; None if its rows are not those of all blocks."""
        kinds, batch = options["cond_or_uncond"], self.blocks.size
        if len(x) != batch * len(kinds):
            self.warn(
                f"the network was called with {len(x)} rows instead of {len(kinds)} conditionings of {batch} pictures; "
                "such calls are not edited"
            )
            return None
        pairs = []
        for j, (kind, uuid) in enumerate(zip(kinds, options["uuids"], strict=True)):
            rows = {
                name: slice(j * batch + own.start, j * batch + own.stop)
                for name, own in ((name, self.blocks.rows(name)) for name in self.blocks.names)
            }
            _, corner = area_of(self._conds.get(uuid, {}), tuple(self._state.shape[-2:]))
            positive = uuid if kind in self.positives else None
            beside = rows.get(APPEARANCE), rows.get(WITHOUT)
            pairs.append(PairedRows(rows[SOURCE], rows[TARGET], positive, corner, *beside))
        size = tuple(x.shape[-2:])
        return TwinCall(len(x), context.shape[1], self.warn, self.step, self.steps, pairs, size, self._state)

    def seen_by(self, editor: InstalledEditor, call: TwinCall) -> TwinCall:
        """The call as an editor shall see it: what others do to the target, they do to it without appearance, too."""
        if editor is self._appearance or WITHOUT not in self.blocks.names:
            return call
        return replace(call, pairs=[*call.pairs, *(replace(pair, target=pair.without) for pair in call.pairs)])

    def warn(self, message: str) -> None:
        """Tell the user, once in a run."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message)
            show_on_running_node(message)


def blocks_of(appearance: InstalledAppearance | None) -> tuple[str, ...]:
    """The blocks of a run, see `TwinBlocks`."""
    return (SOURCE, TARGET, *(() if appearance is None else appearance.blocks))


def repeated(tensor: Tensor | None, batch: int, count: int) -> Tensor | None:
    """The rows of all blocks; one row for all pictures stays one, and None stays None."""
    return tensor if tensor is None or len(tensor) != batch else torch.cat([tensor] * count)


def of_target(callback: Callable | None, blocks: TwinBlocks) -> Callable | None:
    """The sampler's callback, which sees the target alone."""
    if callback is None:
        return None
    rows = blocks.rows(TARGET)

    def see(step: int, denoised: Tensor, x: Tensor, *args: Any) -> Any:
        return callback(step, denoised[rows], x[rows], *args)

    return see
