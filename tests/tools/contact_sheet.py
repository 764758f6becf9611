"""A labelled grid of pictures."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

MARGIN = 8
TEXT = 17


def contact_sheet(
    columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image.Image]]], cell: int = 160
) -> Image.Image:
    """Return a white sheet with a heading per column and a caption above each row.

    Pictures fit into `cell` × `cell` pixels.
    """
    font = ImageFont.load_default(TEXT - 3)
    pitch, height = cell + MARGIN, cell + TEXT + 2 * MARGIN
    sheet = Image.new("RGB", (MARGIN + pitch * len(columns), TEXT + 2 * MARGIN + height * len(rows)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, heading in enumerate(columns):
        draw.text((MARGIN + i * pitch, MARGIN), heading, "black", font)
    for j, (caption, pictures) in enumerate(rows):
        top = TEXT + 2 * MARGIN + j * height
        draw.text((MARGIN, top), caption, "#444", font)
        for i, picture in enumerate(pictures):
            scale = cell / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            sheet.paste(
                picture.convert("RGB").resize(size, Image.Resampling.LANCZOS), (MARGIN + i * pitch, top + TEXT + 4)
            )
    return sheet
