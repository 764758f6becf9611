"""Draw a template as the canvas shows it, without a browser: boxes, links and the titles of this pack's nodes."""

from __future__ import annotations

from typing import Any

from PIL import Image, ImageDraw, ImageFont

from .placing import SOCKET, SOCKETS, TITLE_BAR

WIDTH, MARGIN = 360, 6  # pixels: a card of the gallery shows no more
PAGE, GROUP, OURS, OTHER, BAR, LINK, TEXT = "#202124", "#2b3440", "#1f6f6b", "#3c4043", "#17191b", "#8a9099", "#f1f3f4"
POINTS = 24  # of a link


def drawn(page: dict[str, Any]) -> Image.Image:
    """A picture of a page in the UI's format; this pack's nodes have a colour of their own, notes are left out."""
    nodes = {node["id"]: node for node in page["nodes"] if node["type"] != "MarkdownNote"}
    boxes = [group["bounding"] for group in page["groups"]]
    left, top = min(x for x, *_ in boxes), min(y for _, y, *_ in boxes)
    scale = (WIDTH - 2 * MARGIN) / (max(x + w for x, _, w, _ in boxes) - left)
    height = (max(y + h for _, y, _, h in boxes) - top) * scale

    def at(x: float, y: float) -> tuple[float, float]:
        return MARGIN + (x - left) * scale, MARGIN + (y - top) * scale

    picture = Image.new("RGB", (WIDTH, round(height) + 2 * MARGIN), PAGE)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(8)
    for x, y, w, h in boxes:
        pen.rectangle((*at(x, y), *at(x + w, y + h)), fill=GROUP)
    for _, source, output, target, entry, _ in page["links"]:
        start, end = nodes[source], nodes[target]
        x0, y0 = start["pos"][0] + start["size"][0], _socket(start, output)
        x3, y3 = end["pos"][0], _socket(end, entry)
        reach = 0.25 * ((x3 - x0) ** 2 + (y3 - y0) ** 2) ** 0.5
        line = []
        for i in range(POINTS + 1):
            t = i / POINTS
            a, b, c, d = (1 - t) ** 3, 3 * (1 - t) ** 2 * t, 3 * (1 - t) * t**2, t**3
            line.append(at(a * x0 + b * (x0 + reach) + c * (x3 - reach) + d * x3, (a + b) * y0 + (c + d) * y3))
        pen.line(line, fill=LINK, width=1)
    for node in nodes.values():
        (x, y), (w, h) = node["pos"], node["size"]
        h = 0 if node["flags"].get("collapsed") else h
        ours = node["properties"]["cnr_id"] != "comfy-core"
        pen.rectangle((*at(x, y - TITLE_BAR), *at(x + w, y + h)), fill=OURS if ours else OTHER)
        pen.rectangle((*at(x, y - TITLE_BAR), *at(x + w, y)), fill=BAR)
        if not ours:
            continue
        start, bar = at(x + 8, y - TITLE_BAR), TITLE_BAR * scale
        pen.text((start[0], start[1] + bar / 2), node.get("title", node["type"]), fill=TEXT, font=font, anchor="lm")
    return picture


def _socket(node: dict[str, Any], number: int) -> float:
    """The height of a socket; those of a folded node are at the middle of its bar."""
    if node["flags"].get("collapsed"):
        return node["pos"][1] - TITLE_BAR / 2
    return node["pos"][1] + SOCKET + SOCKETS * number
