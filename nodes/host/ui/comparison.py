"""A picture measured against its reference, and both, one over the other, for the browser."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ...core.maps.measures import Comparison, compare
from .running_node import show_on_running_node
from .temporary_files import as_pngs, write_temporary


def compare_and_show(
    image: Tensor, reference: Tensor, mask: Tensor | None, plain: Tensor | None
) -> tuple[Comparison, str, dict[str, Any]]:
    """Measure `image` [B,H,W,C], and a third picture `plain` where there is one, against the reference; see `compare`.

    Returns the measures of `image`; all measures as text, which the running node shows too; and the part of a node's
    `ui` with which the browser shows the pictures: their files, the text for each picture of the batch, and whether
    only a part, the kept one, was measured. Raises ValueError as `compare` does.
    """
    found = compare(image, reference, mask)
    third = None if plain is None else compare(plain, reference, mask, name="plain")
    text = found.text() if third is None else f"{found.text()}\nplain: {third.text()}"
    pictures = {"reference": reference, "result": image, **({} if plain is None else {"plain": plain})}
    figures = {"result": found.lines(), **({} if third is None else {"plain": third.lines()})}
    files = {name: [write_temporary(png, ".png") for png in as_pngs(batch)] for name, batch in pictures.items()}
    show_on_running_node(text)
    return found, text, {"el_compare": [{"files": files, "figures": figures, "kept_part": mask is not None}]}
