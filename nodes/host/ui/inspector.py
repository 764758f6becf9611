"""The file that the browser's attention inspector shows."""

from __future__ import annotations

from torch import Tensor

from ...core.maps.packing import MOST_VALUES, pack
from ...core.maps.saliency import Saliency
from .kept_maps import KEPT, MOST_BYTES
from .running_node import browser_listens
from .temporary_files import as_pngs, write_temporary


def inspector(
    saliency: Saliency, image: Tensor | None, colors: str, scale: str, output: Saliency | None = None
) -> dict[str, list[dict[str, str]]]:
    """Write the maps for the inspector and return the part of a node's `ui` that names the file.

    image: IMAGE [N,H,W,3] under the maps, repeated over the batch, or None; large pictures are reduced. colors, scale:
    as of `HeatMaps`. Nothing but the inspector reads the file. Where a browser listens, the maps themselves are kept
    under the file's name, for masks that are tuned there. output: the maps that the node puts out, if they are others.
    Less refined maps are there too, unless all together are too many.
    """
    saliency = _fitting(saliency)
    pictures = [] if image is None else as_pngs(image[: saliency.maps.shape[1]])
    written = write_temporary(pack(saliency, colors, scale == "shared", pictures), ".maps")
    if browser_listens():
        KEPT.keep(written["file"], saliency, output)
    return {"el_inspector": [written]}


def _fitting(saliency: Saliency) -> Saliency:
    """Without the less refined maps where they would make the file's maps smaller, or all too large to be kept."""
    maps, batch = saliency.maps.shape[:2]
    values = len(saliency.powers) * maps * batch * saliency.grid[0] * saliency.grid[1]
    fits = values <= MOST_VALUES and saliency.nbytes <= MOST_BYTES
    return saliency if fits else saliency.at_power(saliency.refined)
