"""The mask and the heat map of a manipulated step, shown in the browser while the sampler still runs."""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.maps.colours import COLORMAPS, colourise
from .running_node import browser_listens, send_from_running_node
from .temporary_files import as_pngs, data_url

# The message that js/live_masks.js listens for.
STEP = "explainable_latents.step"
SHOWN = 4  # so many pictures of a batch, side by side


def show_step(step: int, steps: int, mask: Tensor, maps: Tensor | None) -> None:
    """Send the mask of a step, and the maps that it was made from, to the browser that queued the run.

    step: from 0; steps: how many the run makes. mask: [B,h,w] or [B,C,h,w], of which the mean over the channels is
    shown. maps: [S,B,h,w] or [S,B,C,h,w], of which the sum over the words is shown, or None. Where no browser listens,
    nothing is computed.
    """
    if not browser_listens():
        return
    inside = mask if mask.ndim == 3 else mask.mean(1)
    heat = None if maps is None else maps.sum(0) if maps.ndim == 4 else maps.sum(0).mean(1)
    content = {"step": step, "steps": steps, "inside": float(inside.mean()), "heat": None}
    content["mask"] = _picture(inside[..., None].expand(*inside.shape, 3))
    if heat is not None:
        low, high = heat.amin((-2, -1), keepdim=True), heat.amax((-2, -1), keepdim=True)
        scale = (high - low).clamp_min(torch.finfo(heat.dtype).tiny)
        content["heat"] = _picture(colourise(((heat - low) / scale).cpu(), COLORMAPS[0]))
    send_from_running_node(STEP, content)


def _picture(batch: Tensor) -> str:
    """The first pictures of a batch [B,h,w,3] side by side, as a data URL."""
    (png,) = as_pngs(torch.cat(list(batch[:SHOWN].float()), dim=1)[None])
    return data_url(png)
