"""Abs-Grad-SAM by its definition on the host: how many elements share a backward pass, and how long all will take."""

from __future__ import annotations

import logging
import time

from torch import Tensor

from ...core.gradients.definition import Progress, WordAttention, brute_force
from ..ui.running_node import show_on_running_node

log = logging.getLogger("explainable_latents")

# Most elements that share a backward pass.
TOGETHER = 16


class UnfitError(ValueError):
    """The structured solver would not be exact; the message says why."""


def exact(words: WordAttention, prediction: Tensor, polarity: str, together: int, progress: Progress) -> Tensor:
    """`brute_force` [S,B,C,a,b] with up to `together` elements in a pass, whichever is faster here.

    The frames of a prediction [B,C,t,a,b] are further pictures, each latent's one after the other. Says how long it
    will take before it starts.
    """
    batch, seconds = _fastest_batch(words, prediction, polarity, together, progress)
    estimate = f"exact solver: {_amount(prediction, seconds)}"
    log.info("Abs-Grad-SAM, %s", estimate)
    show_on_running_node(estimate)
    maps = brute_force(words, prediction, polarity, batch=batch, progress=progress)
    return maps.transpose(2, 3).flatten(1, 2) if prediction.ndim == 5 else maps


def does_not_fit(
    reason: UnfitError, words: WordAttention, prediction: Tensor, polarity: str, progress: Progress
) -> ValueError:
    """The error that the structured solver cannot be used, and how much work `exact` would be here."""
    cost = _amount(prediction, _fastest_batch(words, prediction, polarity, 1, progress)[1])
    return ValueError(f"the structured solver does not fit here: {reason}. Choose the solver 'exact': {cost} here")


def _fastest_batch(
    words: WordAttention, prediction: Tensor, polarity: str, together: int, progress: Progress
) -> tuple[int, float]:
    """The faster of 1 and `together` elements per backward pass, and its seconds per element, tried on a few."""
    count = prediction[0].numel()
    times = {}
    for batch in sorted({1, min(together, count)}):
        for _ in range(2):  # the first time is slower than the rest will be
            progress(0, count)
            began = time.perf_counter()
            tried = brute_force(words, prediction, polarity, elements=range(batch), batch=batch)
            float(tried.sum())  # waits for the device
            times[batch] = (time.perf_counter() - began) / batch
    best = min(times, key=times.get)
    return best, times[best]


def _amount(prediction: Tensor, seconds: float) -> str:
    count = prediction[0].numel()
    return f"{count} backward passes, about {_duration(count * seconds)}"


def _duration(seconds: float) -> str:
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(2, round(seconds))} seconds"
