"""Sampler runs and what they leave behind: find the run that produced a latent.

Captures and reports hold one `Runs` each. A run is recognised by a digest of the latents that it gave.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

from ..pauses.records import MOST_VARIANTS

# The memory that the runs of one model may take; beyond it the oldest ones are forgotten.
KEPT_BYTES = 512 * 1024**2

# A latent may be converted to one of these on its way from the sampler to the node that reads the run.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Position of the sampler's callback among the arguments of an OUTER_SAMPLE wrapper.
_CALLBACK = 5


@dataclass
class SamplerRun:
    """One run of a sampler. marks: digests of the latents that it gave; none until it has ended."""

    marks: frozenset[bytes] = frozenset()

    def content(self) -> list[Tensor]:
        """The tensors that the run leaves behind."""
        raise NotImplementedError

    def to_cpu(self) -> None:
        """Move them to the CPU."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes of those tensors."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.content())

    def repeats(self, other: SamplerRun) -> bool:
        """Whether both runs left the same tensors, except for the last digits: a GPU does not add in a fixed order."""
        mine, theirs = self.content(), other.content()
        return len(mine) == len(theirs) and all(
            a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-8, equal_nan=True)
            for a, b in zip(mine, theirs, strict=True)
        )


Kept = TypeVar("Kept", bound=SamplerRun)


class Runs(Generic[Kept]):
    """The runs of one patched model, newest last: several samplers, or one with several seeds, may use the model.

    current: the run that goes on now. kept: those that have ended. lost: whether the run of some latent was asked for
    and could not be found.
    """

    def __init__(self, start: Callable[[], Kept], name: str, giver: str, keep: bool = True) -> None:
        """Make an empty run with `start`. keep: whether runs are read after they have ended.

        For messages: name says what the runs are kept in, giver is the display name of the node that patched the model.
        """
        self._start = start
        self._name = name
        self._giver = giver
        self._keeps = keep
        self.current: Kept | None = None
        self.kept: list[Kept] = []
        self.lost = False
        self._ambiguous: frozenset[bytes] = frozenset()

    def around(self, executor: WrapperExecutor, *args: Any, **kwargs: Any) -> Tensor:
        """OUTER_SAMPLE wrapper. A run that fails or is cancelled is not kept; one run may take place within another."""
        run, outer = self._start(), self.current
        self.current = run
        args, kwargs, _, newest = noting(args, kwargs)
        try:
            samples = executor(*args, **kwargs)
            if self._keeps:
                made = [samples]
                for _, x0, *_ in newest:  # as the host's nodes make their output `denoised_output`
                    made.append(executor.class_obj.model_patcher.model.process_latent_out(x0.cpu()))
                run.marks = frozenset().union(*map(_marks, made))
                self._keep(run)
        finally:
            self.current = outer
        return samples

    def latest(self) -> Kept | None:
        """The run that goes on now, else the one that ended last; None before the first."""
        return self.current or (self.kept[-1] if self.kept else None)

    def of(self, samples: Tensor) -> Kept:
        """Find the run that produced `samples`.

        Raises ValueError, with what to do, when no run that is kept produced them, or several different ones did.
        """
        mark = _mark(samples)
        if len(self.parts(samples)) > 1:
            raise ValueError(
                f"this latent is a batch of several variants, made by {len(self.parts(samples))} runs of the model of "
                f"{self._giver}: take the pictures of one with ComfyUI's Latent From Batch, and connect that"
            )
        if mark in self._ambiguous:
            self.lost = True
            raise ValueError(
                f"several runs of the model of {self._giver} made exactly this latent, each in its own way: give each "
                f"sampler a {self._giver} of its own. If there is only one sampler, queue the workflow once more, and "
                "it runs again"
            )
        made = self._made(mark)
        if made is None:
            self.lost = True
            reason = (
                f"none of the {len(self.kept)} runs in the {self._name} made this latent: connect the latent output of "
                "the sampler itself, since the run of a latent that another node has changed cannot be found"
                if self.kept
                else f"the {self._name} is empty: connect the model output of {self._giver} to the sampler whose "
                "latent is connected here"
            )
            raise ValueError(
                f"{reason}. If it is connected, queue the workflow once more and the sampler runs again: ComfyUI took "
                f"the latent from its cache, and its run was dropped ({KEPT_BYTES // 1024**2} MB of runs are kept)."
            )
        return made

    def parts(self, samples: Tensor) -> list[Kept]:
        """The runs whose latents, one behind the other, are `samples`: the variants of one run; empty if there are none
        that fit."""
        if _mark(samples) in self._ambiguous:
            return []
        for count in range(1, min(MOST_VARIANTS, len(samples)) + 1):
            if len(samples) % count == 0:
                made = [self._made(_mark(part)) for part in samples.chunk(count)]
                if None not in made:
                    return made
        return []

    def _made(self, mark: bytes) -> Kept | None:
        """The oldest run that is kept and made a latent with this digest."""
        return next((run for run in self.kept if mark in run.marks), None)

    def _keep(self, run: Kept) -> None:
        """Keep `run` in place of one that it repeats; forget the oldest ones where all take too much memory."""
        run.to_cpu()
        runs = [*(old for old in self.kept if not (old.marks & run.marks and old.repeats(run))), run]
        self._ambiguous = self._ambiguous.union(*(old.marks & run.marks for old in runs[:-1]))
        while len(runs) > 1 and sum(each.size() for each in runs) > KEPT_BYTES:
            runs = runs[1:]
        self.kept = runs


def noting(args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any], Callable | None, list[tuple]]:
    """The arguments of an OUTER_SAMPLE wrapper with a callback that notes what the sampler calls it with.

    Returns them, the callback that they had, None for none, and a list: (step, denoised latent, ...) of the newest
    call, empty before that or where it has no latent.
    """
    newest: list[tuple] = []
    callback = args[_CALLBACK] if len(args) > _CALLBACK else kwargs.get("callback")
    if callback is None:
        return args, kwargs, None, newest

    def noted(step: int, x0: Any, *others: Any, **named: Any) -> Any:
        newest[:] = [(step, x0, *others)] if isinstance(x0, Tensor) else []
        return callback(step, x0, *others, **named)

    if len(args) > _CALLBACK:
        return (*args[:_CALLBACK], noted, *args[_CALLBACK + 1 :]), kwargs, callback, newest
    return args, {**kwargs, "callback": noted}, callback, newest  # another node may hand it on by name


def _marks(samples: Tensor) -> frozenset[bytes]:
    """The digests of a latent in every type that it may be converted to."""
    return frozenset(_mark(samples.detach().to("cpu", dtype)) for dtype in _DTYPES)


def _mark(samples: Tensor) -> bytes:
    """The digest of a latent's numbers, shape and type."""
    digest = hashlib.blake2b(f"{samples.dtype} {tuple(samples.shape)}".encode(), digest_size=16)
    digest.update(samples.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.digest()
