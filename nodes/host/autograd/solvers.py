"""Turn the record of one model call's tail into saliency: which solver fits, and how long it takes."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.attention.aggregate import resize
from ...core.gradients.definition import Progress, WordAttention, brute_force, query_scores
from ...core.gradients.feedforward import Derivative
from ...core.gradients.structured import follows, is_pointwise, structured
from ..ui.running_node import show_on_running_node
from .float32_layers import Tail

log = logging.getLogger("explainable_latents")

STRUCTURED, EXACT = SOLVERS = ("structured", "exact")

# Most elements that share a backward pass of the exact solver.
TOGETHER = 16


@dataclass(frozen=True)
class Record:
    """What was recorded of one conditioning.

    words: its attention in `layer`. tail: the tail that ran, with its features. prediction: z [B,C,a,b] of its rows.
    rows: its own among those of the network's call. scale: d z / d output. last: whether only the network's end follows
    the layer. together: how many elements may share a backward pass.
    """

    words: WordAttention
    tail: Tail
    prediction: Tensor
    rows: slice
    scale: float
    layer: str
    last: bool
    together: int


def solve(record: Record, solver: str, polarity: str, progress: Progress) -> Tensor:
    """Saliency [S,B,C,a,b]. Raises ValueError when the structured solver does not fit, with the time `exact` takes."""
    if solver == EXACT:
        return exact(record, polarity, progress)
    derivative = closed_form(record) if record.last else None
    reason = obstacle(record, derivative)
    if reason is not None:
        count = record.prediction[0].numel()
        _, seconds = fastest_batch(record, polarity, progress, together=1)
        raise ValueError(
            f"the structured solver does not fit here: {reason}. Choose the solver 'exact': {count} backward "
            f"passes, about {duration(count * seconds)} here"
        )
    features, head = record.tail.features[record.rows], record.tail.head(record.scale)
    return structured(record.words, features, head, polarity, progress, derivative)


def closed_form(record: Record) -> Derivative | None:
    """The derivative of the features where the layers behind the attention are the usual ones, else None."""
    layers = record.tail.feedforward(record.rows)
    derivative = None if layers is None else layers.derive(record.words)
    fits = derivative is not None and follows(record.words, record.tail.features[record.rows], derivative)
    return derivative if fits else None


def obstacle(record: Record, derivative: Derivative | None) -> str | None:
    """Why the structured solver would not be exact here, None when it is."""
    if not record.last:
        return f"further blocks follow the layer {record.layer} (in SD 1.x and 2.x none follow the layer 'last')"
    head = record.tail.head(1.0)
    if head is None:
        return "the model does not end in a group norm, SiLU and one convolution"
    features = record.tail.features[record.rows]
    if derivative is None and not is_pointwise(record.words, features):
        return "another node mixes positions behind the last cross-attention"
    if not torch.allclose(head(features) * record.scale, record.prediction, rtol=1e-3, atol=1e-4 * abs(record.scale)):
        return "another node changes what the model computes behind its last block"
    return None


def aggregated(
    words: dict[str, WordAttention],
    grids: dict[str, tuple[int, int]],
    prediction: Tensor,
    size: tuple[int, int],
    polarity: str,
) -> Tensor:
    """The aggregated variant, one backward pass of the sum of z for all layers: [S,B,1,a,b], not normalised."""
    # several conditionings of one call share its record
    gradients = torch.autograd.grad(prediction.sum(), [each.change for each in words.values()], retain_graph=True)
    maps = [
        resize(query_scores(each, gradient, polarity).unflatten(-1, grids[name]), size)
        for (name, each), gradient in zip(words.items(), gradients, strict=True)
    ]
    return torch.stack(maps).sum(0).unsqueeze(2)


def exact(record: Record, polarity: str, progress: Progress) -> Tensor:
    """`brute_force` with the batch size that is fastest here; says how long it will take before it starts."""
    batch, seconds = fastest_batch(record, polarity, progress, record.together)
    count = record.prediction[0].numel()
    estimate = f"exact solver: {count} backward passes, about {duration(count * seconds)}"
    log.info("Abs-Grad-SAM, %s", estimate)
    show_on_running_node(estimate)
    return brute_force(record.words, record.prediction, polarity, batch=batch, progress=progress)


def fastest_batch(record: Record, polarity: str, progress: Progress, together: int) -> tuple[int, float]:
    """The faster of 1 and `together` elements per backward pass, and its seconds per element, tried on a few."""
    count = record.prediction[0].numel()
    times = {}
    for batch in sorted({1, min(together, count)}):
        for _ in range(2):  # the first time is slower than the rest will be
            progress(0, count)
            began = time.perf_counter()
            tried = brute_force(record.words, record.prediction, polarity, elements=range(batch), batch=batch)
            float(tried.sum())  # waits for the device
            times[batch] = (time.perf_counter() - began) / batch
    best = min(times, key=times.get)
    return best, times[best]


def duration(seconds: float) -> str:
    """A length of time as one reads it."""
    for unit, length in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(2, round(seconds))} seconds"
