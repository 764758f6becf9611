"""The losses of guided steps as a plot: a line for each word over the steps, and what became of each step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from PIL import Image, ImageDraw, ImageFont

from ...core.maps.axes import Frame, step_axis, value_axis
from ...core.maps.colours import distinct_colours
from .guidance_report import GuidedStep

Colour = tuple[int, int, int]
PAPER, INK = (24, 24, 28), (236, 236, 236)
FAINT, LIMIT = (70, 70, 78), (160, 160, 170)
WIDTH, HEIGHT, LETTERS = 600, 420, 14
# The part of a plot that its axes span: left, top, right, bottom.
_AREA = 70, 52, 584, 352
_DOT = 4


def word_colours(count: int) -> list[Colour]:
    """A colour for each word, the same in the plot and on its map."""
    return [tuple(row) for row in (distinct_colours(count) * 255).round().int().tolist()]


@dataclass(frozen=True)
class LossPlot:
    """The losses of one run's guided steps. Raises ValueError where no step was measured, or a loss is not finite."""

    steps: Sequence[GuidedStep]

    def __post_init__(self) -> None:
        if not self.measured:
            raise ValueError("no step of this run was measured, so there is nothing to plot")
        for step in self.measured:
            for name, losses in zip(step.labels, step.before, strict=True):
                if not torch.isfinite(losses).all():
                    raise ValueError(
                        f"the loss of {name} at step {step.step} is {losses.tolist()}: the model's output was broken "
                        "(did half precision overflow?). Run the model in another precision, such as bfloat16 or "
                        "float32; Masked Latent Report has this run as text"
                    )

    @property
    def measured(self) -> list[GuidedStep]:
        """The steps that were not skipped."""
        return [step for step in self.steps if step.before is not None]

    def frame(self) -> Frame:
        """The axes, the same for all pictures of a batch: steps from the first to the last, and all losses."""
        numbers = [step.step for step in self.steps]
        return Frame(*_AREA, step_axis(min(numbers), max(numbers)), value_axis(list(self._values())))

    def draw(self, picture: int) -> Image.Image:
        """The plot of one picture of the batch: WIDTH x HEIGHT."""
        page, frame = Image.new("RGB", (WIDTH, HEIGHT), PAPER), self.frame()
        draw, labels = ImageDraw.Draw(page), self.measured[0].labels
        _draw_axes(draw, frame)
        self._draw_limits(draw, frame, picture)
        for word, colour in enumerate(word_colours(len(labels))):
            self._draw_word(draw, frame, word, picture, colour)
        for step in self.steps:
            if step.before is None:
                x, y = frame.place(step.step, frame.up.low)
                _draw_cross(draw, x, y - 2 * _DOT)
        _draw_words(draw, labels)
        draw.text((_AREA[0], HEIGHT - 8), self._key(), LIMIT, _font(), "ls")
        return page

    def _values(self) -> Iterator[float]:
        for step in self.measured:
            for losses in (step.before, step.after, *([step.remaining] if step.limits else [])):
                yield from filter(math.isfinite, losses.flatten().tolist())
            yield from step.limits

    def _draw_word(self, draw: ImageDraw.ImageDraw, frame: Frame, word: int, picture: int, colour: Colour) -> None:
        """A line through a word's losses; at each step a dot, filled if moved, and a stem to the loss afterwards."""
        points = [frame.place(step.step, float(step.before[word, picture])) for step in self.measured]
        draw.line(points, colour, 2)
        for (x, y), step in zip(points, self.measured, strict=True):
            after = float(step.after[word, picture])
            if step.updates[picture] > 1 and math.isfinite(after):
                _, end = frame.place(step.step, after)
                draw.line([(x, y), (x, end)], colour, 1)
                draw.rectangle((x - 2, end - 2, x + 2, end + 2), colour)
            inside = colour if step.updates[picture] else PAPER
            draw.ellipse((x - _DOT, y - _DOT, x + _DOT, y + _DOT), inside, colour, 2)

    def _draw_limits(self, draw: ImageDraw.ImageDraw, frame: Frame, picture: int) -> None:
        """Each step's limits, across the step, and a line through what is compared with them."""
        for step in self.measured:
            for limit in step.limits:
                ends = [frame.place(step.step + side, limit) for side in (-0.5, 0.5)]
                draw.line(ends, INK, 1)
        compared = [step for step in self.measured if step.limits]
        draw.line([frame.place(step.step, float(step.remaining[picture])) for step in compared], LIMIT, 1)

    def _key(self) -> str:
        """What the marks mean."""
        parts = ["dot: moved", "ring: not moved"]
        if any(step.updates.max() > 1 for step in self.measured):
            parts.append("stem: after several moves")
        if any(step.limits for step in self.measured):
            parts.append("white: limit of the grey line")
        if len(self.measured) < len(self.steps):
            parts.append("x: skipped")
        return "   ".join(parts)


def _draw_axes(draw: ImageDraw.ImageDraw, frame: Frame) -> None:
    """The frame, a line and number for each tick, and what the axes are."""
    for tick in frame.up.ticks:
        left, right = (frame.place(side, tick) for side in (frame.across.low, frame.across.high))
        draw.line([left, right], FAINT, 1)
        draw.text((left[0] - 8, left[1]), f"{tick:.4g}", INK, _font(), "rm")
    for tick in frame.across.ticks:
        x, y = frame.place(tick, frame.up.low)
        draw.line([(x, y), (x, y + 5)], INK, 1)
        draw.text((x, y + 8), f"{tick:.0f}", INK, _font(), "mt")
    draw.text((frame.right, frame.bottom + 28), "step", INK, _font(), "rt")


def _draw_cross(draw: ImageDraw.ImageDraw, x: int, y: int) -> None:
    """What marks a step that was skipped."""
    for side in (-1, 1):
        draw.line([(x - _DOT, y - side * _DOT), (x + _DOT, y + side * _DOT)], LIMIT, 2)


def _draw_words(draw: ImageDraw.ImageDraw, labels: Sequence[str]) -> None:
    """The words in their colours, as many as there is room for."""
    x, font = _AREA[0], _font()
    draw.text((x, 10), "loss of", INK, font, "lt")
    x += font.getlength("loss of ") + 6
    for label, colour in zip(labels, word_colours(len(labels)), strict=True):
        width = font.getlength(label)
        if x + width > WIDTH - 30:
            draw.text((x, 10), "...", INK, font, "lt")
            break
        draw.text((x, 10), label, colour, font, "lt")
        x += width + 14


def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(LETTERS)
