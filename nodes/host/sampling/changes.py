"""Changes of a sampler's state between its steps: how to write one, and how to install it on a model.

A new one is a module beside `masked_latent`: a `Change`, and a function that installs it with `change_steps`. It works
with every sampler and sampler node: how the state of the sampler at hand can be changed is found by `ChangedSampler`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor, WrappersMP
from torch import Tensor

from ..attention.model_call import EDITED, aside
from ..ui.running_node import stop_when_cancelled
from .changed_run import Predict
from .changed_sampler import FOLLOW_THE_SCHEDULER, ChangedSampler, listed

log = logging.getLogger("explainable_latents")


@dataclass(frozen=True)
class SamplerInputs:
    """What the host gives a sampler for one run.

    guider: the host's guider; its `inner_model` is the model that is sampled. sigmas: the noise levels [steps + 1] that
    are sampled. noise [B,C,h,w]: zeros where the run continues another one. latent_image: what the noise is added to,
    in the model's own scale. denoise_mask: 1 where the latent may change, 0 where it is kept, or None. watch: samples
    once beforehand from the same noise, with that change alone, in calls that no other node counts as the sampler's.
    """

    guider: Any
    sigmas: Tensor
    seed: int | None
    noise: Tensor
    latent_image: Tensor
    denoise_mask: Tensor | None
    watch: Callable[[Change], None]

    @property
    def steps(self) -> int:
        """Number of steps that the sampler makes."""
        return len(self.sigmas) - 1


class Change:
    """Changes the sampler's state as it enters chosen steps; made for one sampler run.

    steps: ascending, from 0 to the number of steps, which stands for the finished latent. all_blocks: whether it gets
    the states of source and target in a twin run, see `twin_blocks`, not of the target alone.
    """

    all_blocks = False

    def __init__(self, steps: tuple[int, ...]) -> None:
        self.steps = steps

    def __call__(self, step: int, x: Tensor, sigma: Tensor, predict: Predict) -> Tensor:
        """Return the state that enters `step` in place of `x` [B,C,h,w], of the same shape and noise level `sigma`.

        predict: one more call of the model on `x`, or on the state that it is given, which no other node counts as a
        step of the sampler. It may be called as often as needed.
        """
        raise NotImplementedError

    def before_call(self, last: bool, more: bool) -> None:
        """Prepare for a model call of the sampler, for instance to capture its attention or to leave it alone.

        last: whether the next of the change's steps comes right after it. At the end of a run more than one call may be
        called last, since which one was is known only afterwards. more: whether any of the change's steps is to come.
        """

    def after_first_step(self) -> None:
        """Raise the ValueError that a later step is bound to raise, if that is known by now."""

    def predicted(self, x0: Tensor) -> None:
        """Learn what the model predicted [B,C,h,w] in the step that goes on, for all blocks of a twin run."""

    def acts_otherwise(self) -> bool:
        """Asked where the sampler does not hand over its state: whether the change needs it not, as from now on it acts
        in another way."""
        return False

    def note(self, text: str) -> None:
        """Tell the user how the sampler had to be treated so that its state could be changed."""
        log.info(text)


def change_steps(patcher: ModelPatcher, key: str, begin: Callable[[SamplerInputs], Change]) -> None:
    """Make every sampler that runs `patcher` (changed in place: pass a clone) change its state between its steps.

    key: name of the wrapper that is installed. begin: makes the change for one sampler run. Where several changes are
    installed, those that fall on the same step act in the order in which they were installed. The samplers raise
    ValueError as `begin` does, and where their state cannot be changed.
    """

    def wrapper(
        executor: WrapperExecutor,
        guider: Any,
        sigmas: Tensor,
        extra_args: dict,
        callback: Callable | None,
        noise: Tensor,
        latent_image: Tensor,
        denoise_mask: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Tensor:
        """SAMPLER_SAMPLE wrapper: run the same sampler with a function whose state is changed."""
        sampler, given = executor.class_obj, (noise, latent_image, denoise_mask)

        def watch(change: Change) -> None:
            beside, plain = aside(extra_args, EDITED), _watched(sampler, change)
            with torch.random.fork_rng([noise.device] if noise.device.type == "cuda" else []):
                plain.sample(guider, sigmas, beside, lambda *_: stop_when_cancelled(0, 0), *given, True)

        change = begin(SamplerInputs(guider, sigmas, extra_args.get("seed"), *given, watch))
        changed = _changed(sampler, change)
        if changed is sampler:
            return executor(guider, sigmas, extra_args, callback, *given, *args, **kwargs)
        following = WrapperExecutor.new_class_executor(changed.sample, changed, executor.wrappers, executor.idx + 1)
        after = _telling(change, callback)
        return following.execute(guider, sigmas, extra_args, after, *given, *args, **kwargs)

    patcher.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, key, wrapper)


def _changed(sampler: Any, change: Change) -> Any:
    """A copy of the host's sampler whose state is changed; the sampler itself where the change needs none."""
    if not change.steps:
        return sampler
    if not hasattr(sampler, "sampler_function"):
        if change.acts_otherwise():
            return sampler
        raise ValueError(
            f"the sampler {type(sampler).__name__} has no sampler function, so the latent cannot be changed at "
            f"step {listed(change.steps)}. {FOLLOW_THE_SCHEDULER}"
        )
    changed = copy.copy(sampler)
    changed.sampler_function = ChangedSampler.around(sampler.sampler_function, change)
    return changed


def _watched(sampler: Any, change: Change) -> Any:
    """The same, without the changes of other nodes."""
    plain = copy.copy(sampler)
    if hasattr(plain, "sampler_function"):
        plain.sampler_function = ChangedSampler.unchanged(plain.sampler_function)
    return _changed(plain, change)


def _telling(change: Change, callback: Callable | None) -> Callable[..., None]:
    """Return the host's sampler callback, which also tells the change what happened in the step."""

    def after(step: int, x0: Tensor, *args: Any) -> None:
        change.predicted(x0)
        if step == 0:
            change.after_first_step()
        if callback is not None:
            callback(step, x0, *args)

    return after
