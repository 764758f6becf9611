"""The user paints over the masks of a run while its sampler waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...core.maps.saliency import Saliency
from ...core.methods.masked_latent import parse_steps
from ...core.methods.masking import FIRST, LAST, LISTED, PaintedMasking
from ...core.methods.painted_mask import Difference, painted_over, shown
from ..pauses.messages import MASK
from ..pauses.records import Record, recorded_masks
from .asker import Asker
from .pause_content import masks_shown, pictures_and_maps


class Painter:
    """Asks for the masks of one sampler run.

    masking: when to ask. steps: the run's manipulated ones, of `total`. latent_format: the model's. asker: makes what
    asks before steps that it is given. Raises ValueError for steps and recorded answers that the run does not have.
    """

    def __init__(
        self,
        masking: PaintedMasking,
        steps: tuple[int, ...],
        total: int,
        latent_format: Any,
        asker: Callable[[tuple[int, ...]], Asker],
    ) -> None:
        self._asked = steps[:1] if masking.ask_at == FIRST else steps
        if masking.ask_at == LISTED:
            listed = parse_steps(masking.listed, total, "listed_steps")
            self._asked = tuple(step for step in steps if step in listed)
        self._asker = asker(self._asked)
        self._keeps_last = masking.start == LAST
        self._total = total
        self._format = latent_format
        self._last: Difference | None = None
        self._predicted: Tensor | None = None

    def predicted(self, x0: Tensor) -> None:
        """The newest prediction of the sampler's model calls."""
        self._predicted = x0

    def __call__(
        self, step: int, x: Tensor, sigma: Tensor, found: tuple[Tensor, Saliency | None], predict: Callable[[], Tensor]
    ) -> Tensor:
        """The mask to use at a manipulated step in place of the found one; see `MaskSource` for the shapes.

        Raises the host's exception when the user cancels, and ValueError for a recorded mask of another size.
        """
        mask, saliency = found
        start = mask if self._last is None else self._last.applied(_for_each(mask, x))
        if step not in self._asked:
            return start
        each, before = _for_each(mask, x), _for_each(start, x)
        levels = shown(before)
        painted = self._answered(step, x, sigma, each, levels, saliency, predict)
        changed = [
            None if new is None or torch.equal(new, old) else new for new, old in zip(painted, levels, strict=True)
        ]
        if all(new is None for new in changed):
            return start
        self._asker.add(Record(step, masks=tuple(None if new is None else new.numpy() for new in changed)))
        result = painted_over(before, changed)
        if self._keeps_last:
            self._last = Difference.between(each, result)
        return result

    def _answered(
        self,
        step: int,
        x: Tensor,
        sigma: Tensor,
        found: Tensor,
        levels: Tensor,
        saliency: Saliency | None,
        predict: Callable[[], Tensor],
    ) -> list[Tensor | None]:
        """What the user, or the record, has for each picture: levels [h,w], or None for no change."""
        height, width = levels.shape[1:]
        nothing: list[Tensor | None] = [None] * len(levels)
        if self._asker.recorded is not None:
            record = self._asker.recorded.get(step)
            if record is None:
                return nothing
            self._asker.note(step, "the recorded answer was used")
            masks = recorded_masks(record, len(levels), (width, height))
        else:

            def content() -> dict[str, Any]:
                x0 = predict() if self._predicted is None else self._predicted
                about = {"steps": self._total, "sigma": float(sigma), "values": []}
                masks = {"size": [width, height], "found": masks_shown(shown(found)), "start": masks_shown(levels)}
                own = x0 if len(x0) == len(x) else None  # in a twin run the prediction is that of both
                return {**about, **masks, **pictures_and_maps(self._format, own, saliency)}

            outcome = self._asker.ask(MASK, step, content)
            self._asker.note(step, outcome.text)
            masks = outcome.answer.masks if outcome.answer else ()
        return [None if mask is None else torch.from_numpy(mask) for mask in masks] or nothing


def _for_each(mask: Tensor, x: Tensor) -> Tensor:
    """A mask for each picture of the state `x`; one for all frames of a video stays one."""
    return mask.expand(len(x), *mask.shape[1:]) if len(mask) == 1 and x.ndim == 4 else mask
