"""A process that draws: it loads ComfyUI and the model once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from ...tools.comfyui.inprocess import load_comfyui
from ...tools.comfyui.pack import alias_pack
from .asked import Outcome, all_asked

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


def visit(index: int, names: tuple[str, ...]) -> tuple[int, Mapping[str, tuple[Outcome, Image.Image]]]:
    """Draw a prompt plain and with these variants."""
    return index, begin().visit(all_asked()[index], names)
