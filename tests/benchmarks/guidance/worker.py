"""A process that draws: it loads ComfyUI and the model once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from ...tools.comfyui.inprocess import load_comfyui
from ...tools.comfyui.pack import alias_pack
from .asked import PROMPTS, Outcome, all_asked

_worker: Any = None


def begin() -> Any:
    """The model and the judge of this process, loaded once."""
    global _worker
    if _worker is None:
        torch.set_num_threads(1)
        load_comfyui()
        alias_pack()
        from .sampled import Sampled

        _worker = Sampled()
    return _worker


def visit(numbers: tuple[int, ...], name: str) -> Mapping[int, tuple[Outcome, Image.Image]]:
    """Draw a batch of `all_asked` with a variant: what each shows, and its picture, by its number."""
    asked = all_asked(1 + max(numbers) // PROMPTS)
    return dict(zip(numbers, begin().visit(tuple(asked[i] for i in numbers), name), strict=True))
