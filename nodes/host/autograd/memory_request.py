"""Memory for what is measured beside a sampler's own calls: the host is asked for it before it loads the model."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

import comfy.model_management
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrapperExecutor

log = logging.getLogger("explainable_latents")

# Of a model, how many latents of which (h, w), and what the device has beside the plain call: the bytes needed.
Needed = Callable[[ModelPatcher, int, tuple[int, int], float], float]


def asking_for(bytes_needed: Needed) -> Callable[..., tuple]:
    """A PREPARE_SAMPLING wrapper that has the host reserve so much beside the model call, counted in latents."""

    def around_loading(
        executor: WrapperExecutor, model: ModelPatcher, noise_shape: Sequence[int], *args: Any, **kwargs: Any
    ) -> tuple:
        latents, *size = noise_shape
        plain = model.model.memory_required([1, *size])
        total = comfy.model_management.get_total_memory(model.load_device)
        room = total - latents * plain - model.model_size()
        count = latents * math.prod(size[1:-2])  # with their frames
        needed = bytes_needed(model, count, tuple(size[-2:]), room)
        log.debug("%.0f MB asked for beside the model call", needed / 1024**2)
        return executor(model, [latents + math.ceil(needed / plain), *size], *args, **kwargs)

    return around_loading
