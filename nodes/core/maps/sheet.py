"""A sheet of heat maps, one picture that shows many: which maps it shows, and where on it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .saliency import tabulate

MOST_TILES = 100
# A page this many times longer than wide (or wider than long) is a strip, too long to be seen as a whole.
STRIP = 4.0
_SHAPE = 4 / 3  # width : height of a page that fills a screen


@dataclass(frozen=True)
class Sheet:
    """The maps of a sheet, block by block: one block per frame (step or layer).

    blocks: for each frame its tiles in reading order, each as indices (map, latent). left_out: a text that says what
    the sheet does not show; empty if it shows everything.
    """

    blocks: tuple[tuple[tuple[int, int], ...], ...]
    left_out: str


def sheet_of(labels: Sequence[str], batch: int, most: int = MOST_TILES) -> Sheet:
    """The sheet of the maps with these `labels`, each for `batch` latents: `most` tiles at most.

    If there are more, it shows evenly spaced frames, including the first and the last. If a single frame has more, the
    last latents of the batch and then the last words are left out.
    """
    table = tabulate(labels)
    words = min(len(table.words), most)
    latents = min(batch, most // words)
    frames = _evenly(len(table.frames), most // (words * latents))
    blocks = tuple(
        tuple((i, latent) for i in table.maps[frame][:words] if i is not None for latent in range(latents))
        for frame in frames
    )
    kind = "steps" if "step " in table.frames[0] else "layers"
    counts = (
        (len(frames), len(table.frames), f"{kind}, evenly spaced"),
        (latents, batch, "pictures, the first ones"),
        (words, len(table.words), "words, the first ones"),
    )
    return Sheet(blocks, "; ".join(f"{shown} of {there} {what}" for shown, there, what in counts if shown < there))


def arrange(sheet: Sheet, tile: tuple[int, int]) -> list[list[tuple[int, int] | None]]:
    """The sheet's tiles in rows, None where a place stays empty. tile: width and height of one, in any unit.

    A frame stays in one row, and the number of frames side by side is the one that brings the page closest to the shape
    of a screen. If every such page is a strip, the tiles of a frame are wrapped as well.
    """
    size = max(len(block) for block in sheet.blocks)
    whole = [(size, beside) for beside in range(1, len(sheet.blocks) + 1)]
    wrapped = [(width, beside) for width in range(1, size + 1) for _, beside in whole]
    stretches = {shape: _stretch(sheet, shape, tile) for shape in (*whole, *wrapped)}
    best = min(whole, key=lambda shape: abs(math.log(stretches[shape] / _SHAPE)))
    if not 1 / STRIP <= stretches[best] <= STRIP:
        best = min(wrapped, key=lambda shape: abs(math.log(stretches[shape] / _SHAPE)))
    width, beside = best
    height = math.ceil(size / width)
    rows: list[list[tuple[int, int] | None]] = []
    for start in range(0, len(sheet.blocks), beside):
        lines = [[None] * (width * beside) for _ in range(height)]
        for i, block in enumerate(sheet.blocks[start : start + beside]):
            for j, entry in enumerate(block):
                lines[j // width][i * width + j % width] = entry
        rows += [line for line in lines if any(line)]
    return rows


def _stretch(sheet: Sheet, shape: tuple[int, int], tile: tuple[int, int]) -> float:
    """Width divided by height of a page whose frames are `shape[0]` tiles wide, `shape[1]` of them side by side."""
    width, beside = shape
    height = math.ceil(max(len(block) for block in sheet.blocks) / width)
    return width * beside * tile[0] / (height * math.ceil(len(sheet.blocks) / beside) * tile[1])


def _evenly(count: int, most: int) -> list[int]:
    """At most `most` of the numbers below `count`, evenly spaced, with the first and the last; only the last for 1."""
    if count <= most:
        return list(range(count))
    if most == 1:
        return [count - 1]
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]
