"""What a pause shows: the pictures that the model predicts now, the words' heat maps, and masks."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from ...core.maps.colours import COLORMAPS
from ...core.maps.packing import pack
from ...core.maps.saliency import Saliency
from ..pauses.answers import write_png
from ..ui.temporary_files import as_pngs, data_url, write_temporary


def pictures_and_maps(latent_format: Any, x0: Tensor | None, saliency: Saliency | None) -> dict[str, Any]:
    """The part `pictures` and `maps` of a pause's message, see `pauses.messages`.

    x0: the clean latent [B,C,h,w] that is predicted, in the model's own scale; None where it is not known.
    """
    images = None if x0 is None else latent_pictures(latent_format, x0)
    pngs = [] if images is None else as_pngs(images)
    shown = None if saliency is None else saliency.at_power(saliency.refined)
    maps = None if shown is None else write_temporary(pack(shown, COLORMAPS[0], False, pngs), ".maps")
    return {"pictures": [data_url(png) for png in pngs], "maps": maps}


def masks_shown(levels: Tensor) -> list[str]:
    """8-bit levels [n,h,w] as data URLs."""
    return [data_url(write_png(each.numpy())) for each in levels]


def latent_pictures(latent_format: Any, x0: Tensor) -> Tensor | None:
    """IMAGE [B,h,w,3] of a clean latent [B,C,h,w] in the model's own scale, of a video the first frame; without a VAE.

    latent_format: the model's, which says how its channels become colours. None where that is not known.
    """
    factors = getattr(latent_format, "latent_rgb_factors", None)
    if factors is None or x0.ndim not in (4, 5):  # several latents in one, of pictures and sound, have no place
        return None
    reshape = getattr(latent_format, "latent_rgb_factors_reshape", None)
    x0 = x0.detach().float() if reshape is None else reshape(x0.detach().float())
    frame = x0[:, :, 0] if x0.ndim == 5 else x0
    weight, bias = x0.new_tensor(factors).T, getattr(latent_format, "latent_rgb_factors_bias", None)
    colours = F.linear(frame.movedim(1, -1), weight, None if bias is None else x0.new_tensor(bias))
    return ((colours + 1) / 2).clamp(0, 1).cpu()
