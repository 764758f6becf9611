"""Which sampler run a latent came from: what runs leave behind is found again by the latent that they made."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from comfy.patcher_extension import WrapperExecutor
from torch import Tensor

# What a model's runs leave behind may take this much memory; beyond it the oldest ones are forgotten.
KEPT_BYTES = 512 * 1024**2

# A latent may be brought to one of these on its way from the sampler to its reader.
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

# Where the host's sampling hands over the callback that its nodes take the denoised latent from.
_CALLBACK = 5


@dataclass
class SamplerRun:
    """One run of a sampler. marks: digests of the latents it gave, none until it has ended."""

    marks: frozenset[bytes] = frozenset()

    def content(self) -> list[Tensor]:
        """What the run leaves behind."""
        raise NotImplementedError

    def to_cpu(self) -> None:
        """Leave the compute device."""
        raise NotImplementedError

    def size(self) -> int:
        """Bytes that the run keeps."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self.content())

    def repeats(self, other: SamplerRun) -> bool:
        """Whether both runs left the same behind; a device that adds in any order may differ in the last digits."""
        mine, theirs = self.content(), other.content()
        return len(mine) == len(theirs) and all(
            a.shape == b.shape and torch.allclose(a.float(), b.float(), rtol=1e-3, atol=1e-8, equal_nan=True)
            for a, b in zip(mine, theirs, strict=True)
        )


Kept = TypeVar("Kept", bound=SamplerRun)


class Runs(Generic[Kept]):
    """The runs of one patched model, newest last: several samplers, or one with several seeds, may use it.

    current: the run that goes on now. kept: those that have ended. lost: whether a latent was asked for whose run could
    not be told.
    """

    def __init__(self, start: Callable[[], Kept], name: str, giver: str, keep: bool = True) -> None:
        """Begin every run with `start`. name: what is kept. giver: display name of the node that patched the model.

        keep: whether what a run leaves behind is read after it has ended.
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
        """OUTER_SAMPLE wrapper. A run that fails or is cancelled leaves nothing behind; runs may nest."""
        run, outer = self._start(), self.current
        self.current, denoised = run, []
        if len(args) > _CALLBACK and args[_CALLBACK] is not None:
            args = (*args[:_CALLBACK], _noting(args[_CALLBACK], denoised), *args[_CALLBACK + 1 :])
        elif kwargs.get("callback") is not None:  # another node may hand it on by name
            kwargs = {**kwargs, "callback": _noting(kwargs["callback"], denoised)}
        try:
            samples = executor(*args, **kwargs)
            if self._keeps:
                made = [samples]
                if denoised:  # as the host's nodes make their output `denoised_output`
                    made.append(executor.class_obj.model_patcher.model.process_latent_out(denoised[0].cpu()))
                run.marks = frozenset().union(*map(_marks, made))
                self._keep(run)
        finally:
            self.current = outer
        return samples

    def latest(self) -> Kept | None:
        """The run that goes on now, else the one that ended last."""
        return self.current or (self.kept[-1] if self.kept else None)

    def of(self, samples: Tensor) -> Kept:
        """The run that made the latent `samples`.

        Raises ValueError, with what to do, when none of those that are kept made it or when it cannot be told which.
        """
        mark = _mark(samples)
        if mark in self._ambiguous:
            self.lost = True
            raise ValueError(
                f"several runs of the model of {self._giver} made exactly this latent, each in its own way: give each "
                f"sampler a {self._giver} of its own. If there is one sampler only, queue the workflow once more and "
                f"it runs again"
            )
        made = [run for run in self.kept if mark in run.marks]
        if not made:
            self.lost = True
            reason = (
                f"none of the {len(self.kept)} runs in the {self._name} made this latent: connect the latent output of "
                f"the sampler itself, since a latent that another node changed no longer tells its run"
                if self.kept
                else f"the {self._name} is empty: connect the model output of {self._giver} to the sampler whose "
                f"latent is connected here"
            )
            raise ValueError(
                f"{reason}. If it is connected, queue the workflow once more and the sampler runs again: ComfyUI took "
                f"the latent from its cache, and the run is no longer held ({KEPT_BYTES // 1024**2} MB of runs are)."
            )
        return made[0]

    def _keep(self, run: Kept) -> None:
        """Remember `run` in place of one that it repeats; forget the oldest ones where they take too much memory."""
        run.to_cpu()
        runs = [*(old for old in self.kept if not (old.marks & run.marks and old.repeats(run))), run]
        self._ambiguous = self._ambiguous.union(*(old.marks & run.marks for old in runs[:-1]))
        while len(runs) > 1 and sum(each.size() for each in runs) > KEPT_BYTES:
            runs = runs[1:]
        self.kept = runs


def _noting(callback: Callable, denoised: list[Tensor]) -> Callable:
    """The sampler's callback; keeps its latest denoised latent in `denoised`."""

    def noting(step: int, x0: Any, *args: Any, **kwargs: Any) -> Any:
        denoised[:] = [x0] if isinstance(x0, Tensor) else []
        return callback(step, x0, *args, **kwargs)

    return noting


def _marks(samples: Tensor) -> frozenset[bytes]:
    return frozenset(_mark(samples.detach().to("cpu", dtype)) for dtype in _DTYPES)


def _mark(samples: Tensor) -> bytes:
    """Digest of a latent's numbers, shape and type."""
    digest = hashlib.blake2b(f"{samples.dtype} {tuple(samples.shape)}".encode(), digest_size=16)
    digest.update(samples.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.digest()
