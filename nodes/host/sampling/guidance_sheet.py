"""One picture of a guided run: the losses over its steps, beside them where the model looked last, and the boxes."""

from __future__ import annotations

import math

import numpy as np
import torch
from comfy.model_management import intermediate_device
from comfy_execution.graph_utils import ExecutionBlocker
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ...core.maps.outline import outline
from ...core.methods.word_places import Places
from ..ui.heat_maps import SCALES, HeatMaps
from ..ui.running_node import show_on_running_node
from .guidance_report import GuidanceReport, GuidedRun
from .loss_plot import HEIGHT, LETTERS, PAPER, WIDTH, Colour, LossPlot, word_colours

_GAP = 10
_LINE = 22  # of text above a map
_OPACITY = 0.6
# More maps than these would be too small to be seen.
_MOST = 32


def guidance_outputs(
    report: object, samples: Tensor, image: Tensor | None
) -> tuple[Tensor | ExecutionBlocker, str, Tensor | None]:
    """A sheet for each picture of the batch, IMAGE [B,H,W,3], and the report as text, of the run that made `samples`.

    image: IMAGE under the maps, if any. Without a measured step the sheet blocks the nodes after it with a message. At
    last the sheet to be shown on the node, None if there is none. The running node shows the text. Raises ValueError
    for a report of another kind, as `Runs.of`, `LossPlot`, and `HeatMaps`.
    """
    if not isinstance(report, GuidanceReport):
        raise ValueError(
            "this report has no losses: connect the report of a node that guides (Keep Words, Place Words, ...); the "
            "reports of others are read by Masked Latent Report"
        )
    run, text = report.runs.of(samples), report.text(samples)
    show_on_running_node(text)
    if all(step.before is None for step in run.steps):
        return ExecutionBlocker("No step of this run was guided, so there is no loss to draw."), text, None
    sheet = torch.stack(guidance_sheets(run, image)).to(intermediate_device())
    return sheet, text, sheet


def guidance_sheets(run: GuidedRun, image: Tensor | None) -> list[Tensor]:
    """The sheet [H,W,3] of each picture; see `guidance_outputs`."""
    plot = LossPlot(run.steps)
    last = plot.measured[-1]
    heat = None
    if last.saliency is not None:
        heat = HeatMaps(last.saliency, image, "fire", 1.0 if image is None else _OPACITY, SCALES[0])
    sheets = []
    for picture in range(last.before.shape[1]):
        pages = [plot.draw(picture)]
        if heat is not None:
            pages.append(_maps(heat, last.saliency.grid, last.labels, run.places, picture))
        sheet = Image.new("RGB", (sum(page.width for page in pages), HEIGHT), PAPER)
        for number, page in enumerate(pages):
            sheet.paste(page, (number * WIDTH, 0))
        sheets.append(torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255))
    return sheets


def _maps(
    heat: HeatMaps, grid: tuple[int, int], labels: tuple[str, ...], places: Places | None, picture: int
) -> Image.Image:
    """The maps of a picture, each under its word, with the outline of the word's place."""
    shown = min(len(labels), _MOST)
    rows = 1 if shown == 1 else max(2, math.ceil(math.sqrt(shown / 2)))
    columns, down = math.ceil(shown / rows), HEIGHT // rows
    side = down - _LINE - _GAP
    size = tuple(max(1, round(side * length / max(grid))) for length in grid)
    across = size[1] + _GAP
    page = Image.new("RGB", (columns * across, HEIGHT), PAPER)
    owned = None if places is None else places.shares(size) > 0.5
    for i, colour in enumerate(word_colours(len(labels))[:shown]):
        left, top = i // rows * across, i % rows * down + _LINE
        pixels = (heat.draw(i, picture, size).clamp(0, 1) * 255).round().byte().numpy()
        tile = Image.fromarray(pixels)
        if owned is not None:
            _draw_outline(tile, owned[i], colour)
        page.paste(tile, (left, top))
        word = Image.new("RGB", (size[1], _LINE), PAPER)
        ImageDraw.Draw(word).text((0, _LINE / 2), labels[i], colour, ImageFont.load_default(LETTERS), "lm")
        page.paste(word, (left, top - _LINE))
    return page


def _draw_outline(tile: Image.Image, own: Tensor, colour: Colour) -> None:
    """Lines around a place, on a dark edge, so that they can be seen on every map."""
    draw = ImageDraw.Draw(tile)
    lines = outline(own).clamp(min=0)
    limit = torch.tensor([tile.width - 1, tile.height - 1] * 2)
    for ink, width in (((0, 0, 0), 4), (colour, 2)):
        for line in torch.minimum(lines, limit).tolist():
            draw.line(line, ink, width)
