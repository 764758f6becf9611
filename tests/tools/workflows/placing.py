"""Put the nodes of a page where no wire passes under one, and every wire goes from left to right.

Columns stand side by side. The nodes of a column lie below each other in the order of the page, each as high as the
wires that pass over it allow. Places are in pixels of the canvas; y is below a node's title bar.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from .pages import Column, Page

ROW_GAP = 24  # between a node and the title bar of the next
TITLE_BAR = 30
CLEARANCE = 14  # of a wire above a title bar or below a node
CORNER = 20  # so far into the sides of a node it does not count as under it
SOCKET, SOCKETS = 14, 20  # the first socket's place below the title bar, and how far apart they are
# The largest page whose text is drawn when the host fits it into three quarters of a window of 1920 × 1080.
LARGEST = 2500, 1396
# With what a run adds below: pictures, the masks of its steps.
HEIGHTS = {
    "CheckpointLoaderSimple": 102,
    "CLIPLoader": 120,
    "CLIPTextEncode": 110,
    "CLIPVisionLoader": 62,
    "ConditioningCombine": 54,
    "ConditioningSetMask": 110,
    "ConditioningSetPropertiesAndCombine": 194,
    "ConditioningZeroOut": 36,
    "DualCLIPLoader": 150,
    "ELAttentionSaliency": 160,
    "ELCaptureAttention": 220,
    "ELCarryMask": 400,
    "ELClassifierGuidance": 420,
    "ELCompareImages": 508,
    "ELDenseDiffusionModel": 420,
    "ELDilateSaliency": 142,
    "ELEditFriendlyInversion": 400,
    "ELFindPoints": 428,
    "ELFindRegions": 200,
    "ELGradientSaliency": 560,
    "ELGuidanceReport": 430,
    "ELGuideShape": 595,
    "ELInvertPicture": 520,
    "ELLayoutFromText": 960,
    "ELMaskedLatentKSampler": 756,
    "ELMaskedLatentModel": 404,
    "ELMaskedLatentReport": 200,
    "ELKeepWords": 362,
    "ELMaskFromAttention": 545,
    "ELMaskFromGradient": 595,
    "ELMaskFromImage": 60,
    "ELPaintMask": 330,
    "ELParseSubjects": 430,
    "ELPauseSampling": 340,
    "ELProbeAttention": 424,
    "ELCrossImageAttention": 450,
    "ELEyeForAnEye": 400,
    "ELMutualSelfAttention": 190,
    "ELPlugAndPlay": 180,
    "ELPlaceWords": 530,
    "ELPromptDifference": 436,
    "ELPromptToPrompt": 488,
    "ELPromptWords": 420,
    "ELRegionalAttentionModel": 190,
    "ELStructuredDiffusionModel": 228,
    "ELSaliencyOverlay": 740,
    "ELSaliencyToMask": 322,
    "ELSegmentPicture": 700,
    "ELShowAttention": 1240,
    "ELSmoothSaliency": 114,
    "ELTeachRegions": 416,
    "ELTwinSamplingModel": 278,
    "EmptyLatentImage": 120,
    "EmptySD3LatentImage": 120,
    "FluxGuidance": 62,
    "ImageColorToMask": 62,
    "KSampler": 272,
    "LoadImage": 330,
    "MaskToImage": 36,
    "ModelSamplingAuraFlow": 62,
    "ModelSamplingFlux": 150,
    "PreviewAny": 160,
    "PreviewImage": 300,
    "PrimitiveStringMultiline": 110,
    "SamplerCustom": 272,
    "SaveImage": 330,
    "SetLatentNoiseMask": 54,
    "UNETLoader": 92,
    "VAEDecode": 54,
    "VAEEncode": 54,
    "VAELoader": 62,
}


@dataclass
class Box:
    """Where a node's body lies; `folded` ones are only a title bar, above y."""

    x: float
    y: float
    width: float
    height: float
    folded: bool = False

    @property
    def bottom(self) -> float:
        """Its lower edge."""
        return self.y + (0 if self.folded else self.height)

    def socket(self, number: float) -> float:
        """The height of a socket; all of a folded node are at the middle of its bar."""
        return self.y - TITLE_BAR / 2 if self.folded else self.y + SOCKET + SOCKETS * number


@dataclass(frozen=True)
class Wire:
    """A link between the nodes with two titles: output and input sockets, counted from the top."""

    source: str
    output: int
    target: str
    input: float

    def points(self, boxes: dict[str, Box], count: int = 60) -> Iterator[tuple[float, float]]:
        """Points along it, as both renderers draw it: the front end's spline."""
        start, end = boxes[self.source], boxes[self.target]
        x0, y0 = start.x + start.width, start.socket(self.output)
        x3, y3 = end.x, end.socket(self.input)
        reach = 0.25 * ((x3 - x0) ** 2 + (y3 - y0) ** 2) ** 0.5
        for i in range(count + 1):
            t = i / count
            a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
            yield a * x0 + b * (x0 + reach) + c * (x3 - reach) + d * x3, a * y0 + b * y0 + c * y3 + d * y3

    def under(self, boxes: dict[str, Box], title: str) -> list[float]:
        """The heights at which it passes under the node with this title."""
        box = boxes[title]
        inside = (y for x, y in self.points(boxes) if box.x + CORNER < x < box.x + box.width - CORNER)
        return [y for y in inside if box.y - TITLE_BAR - CLEARANCE < y < box.bottom + CLEARANCE]


def place(page: Page, graph: dict[str, Any], wires: Sequence[Wire]) -> dict[str, Box]:
    """Where each node lies. ValueError for a page that does not name every node once, or cannot be laid out."""
    kinds = {node["_meta"]["title"]: node["class_type"] for node in graph.values()}
    named = [title for column in page.columns for title in column.titles]
    if sorted(named) != sorted(kinds):
        raise ValueError(f"the page names {sorted(named)}, the graph has {sorted(kinds)}")
    boxes, x = {}, 0
    for column in page.columns:
        y = 0
        for title in column.titles:
            y = max(y, page.tops.get(title, 0))
            folded = title in page.folded
            height = 0 if folded else page.heights.get(title, HEIGHTS[kinds[title]])
            boxes[title] = Box(x, y, column.width, height, folded)
            y += height + ROW_GAP + TITLE_BAR
        x += column.width + page.gap
    for wire in wires:
        if boxes[wire.source].x >= boxes[wire.target].x:
            raise ValueError(f"the wire from {wire.source!r} to {wire.target!r} does not go to the right")
    for _ in range(400):
        moved = [wire for wire in wires if _moved_down(page.columns, boxes, wire)]
        if not moved:
            return boxes
    raise ValueError(f"wires pass under nodes wherever these are moved: {boxes}")


def _moved_down(columns: Sequence[Column], boxes: dict[str, Box], wire: Wire) -> bool:
    """Whether nodes had to be moved below a wire, with those that lie under them."""
    moved = False
    for column in columns:
        for place_in_column, title in enumerate(column.titles):
            under = wire.under(boxes, title) if title not in (wire.source, wire.target) else []
            if under:
                down = max(under) + TITLE_BAR + CLEARANCE + 1 - boxes[title].y
                for each in column.titles[place_in_column:]:
                    boxes[each].y += down
                moved = True
    return moved
