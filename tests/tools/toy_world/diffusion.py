"""The training of a toy's network and text encoder, which can be broken off and taken up again; what stages share."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .modules import TextEncoder
from .objectives import Objective
from .precision import mixed
from .snapshots import Snapshot, whole
from .vocabulary import Vocabulary

log = logging.getLogger("toy_world")


@dataclass(frozen=True)
class Plan:
    """How long and how fast network and text encoder learn.

    bare: in which share of the samples only words that name something are left, and where the text starts.
    """

    steps: int
    batch: int
    learning_rate: float
    bare: float = 0.0


def schedule(step: int, steps: int, warmup: int = 200) -> float:
    """Linear warm-up, then a cosine down to one hundredth of the peak learning rate."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))


def reporter(name: str, steps: int, first: int = 0) -> Iterator[None]:
    """Log the mean loss and the time left every 100 steps; send it one loss per step, the `first` ones being done."""
    start, losses = time.monotonic(), []
    for step in range(first + 1, steps + 1):
        losses.append((yield))
        if step % 100 == 0 or step == steps:
            spent = time.monotonic() - start
            left = spent / (step - first) * (steps - step) / 60
            log.info("%s %d/%d loss %.5f, %.0f s, %.1f min left", name, step, steps, np.mean(losses), spent, left)
            losses.clear()
    yield


class Average:
    """Exponential moving average of parameters, with a short memory at the start."""

    def __init__(self, parameters: list[nn.Parameter], decay: float = 0.9995):
        self.live, self.decay, self.count = parameters, decay, 0
        self.values = [p.detach().clone() for p in parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the live parameters."""
        self.count += 1
        weight = 1 - min(self.decay, (1 + self.count) / (10 + self.count))
        torch._foreach_lerp_(self.values, [p.detach() for p in self.live], weight)

    def state_dict(self) -> dict:
        """What `load_state_dict` needs."""
        return {"values": self.values, "count": self.count}

    @torch.no_grad()
    def load_state_dict(self, state: dict) -> None:
        """Go on from a `state`."""
        torch._foreach_copy_(self.values, state["values"])
        self.count = state["count"]

    @torch.no_grad()
    def apply(self) -> None:
        """Copy the average into the live parameters."""
        for p, value in zip(self.live, self.values, strict=True):
            p.copy_(value)


def train_diffusion(
    plan: Plan,
    latents: Tensor,
    caption: Callable[[int, np.random.Generator], str],
    vocabulary: Vocabulary,
    objective: Objective,
    text: TextEncoder,
    snapshot: Path,
) -> None:
    """Train the objective's network and the text encoder (in place): one prompt in ten empty, EMA.

    latents: [N,4,16,16] as the network sees them. caption: describes the i-th of them in a random way.
    The text encoder's end-of-text vector is left out in three samples of ten, so that the words themselves have to
    carry what they mean (nothing about attention is supervised). `snapshot` receives everything every 500 steps; a run
    that finds it goes on from there and ends as if it had never stopped.
    """
    rng = np.random.default_rng(4)
    device = next(text.parameters()).device
    parameters = [*objective.network.parameters(), *text.parameters()]
    average = Average(parameters)
    optimiser = torch.optim.AdamW(parameters, plan.learning_rate, weight_decay=1e-2, betas=(0.9, 0.99), fused=True)
    lr = torch.optim.lr_scheduler.LambdaLR(optimiser, partial(schedule, steps=plan.steps))
    kept = Snapshot(
        snapshot,
        parameters,
        {"average": average, "optimiser": optimiser, "lr": lr},
        {"numpy": (lambda: rng.bit_generator.state, partial(setattr, rng.bit_generator, "state"))},
    )
    first = kept.restore()
    report = reporter("diffusion", plan.steps, first)
    next(report)
    for step in range(first, plan.steps):
        picks = rng.integers(len(latents), size=plan.batch)
        captions = [caption(i, rng) if rng.random() > 0.1 else "" for i in picks]
        rows, keep, end = vocabulary.encode(captions)
        if plan.bare:
            keep &= ~(vocabulary.is_grammar(rows) & (torch.rand(len(picks), 1) < plan.bare))
        rows, keep, end = (x.to(device) for x in (rows, keep, end))
        noised = objective.noised(latents[torch.from_numpy(picks)].to(device))
        with mixed(device):
            keep = keep & ~(end & (torch.rand(len(picks), 1, device=device) < 0.3))
            predicted = objective.predict(noised, text(rows, keep), keep)
        loss = (((predicted.float() - noised.target) ** 2).mean((1, 2, 3)) * noised.weight).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        lr.step()
        average.update()
        report.send(loss.item())
        kept.after(step + 1)
    average.apply()


def finished_or_so_far(so_far: bool, path: Path, plan: Plan, train: Callable[[Plan], dict]) -> dict:
    """What `train` makes, kept at `path`; `so_far`: what its last snapshot has, without training or keeping anything.

    A file at `path` is read in either case.
    """
    if so_far and not path.exists():
        return train(replace(plan, steps=0))
    return staged(path, partial(train, plan))


def staged(path: Path, make: Callable[[], dict]) -> dict:
    """Return the state saved at `path`, making and saving it first if it is not there."""
    if not path.exists():
        whole(path, make())
    return torch.load(path, weights_only=True)
