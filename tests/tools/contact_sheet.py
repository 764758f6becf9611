"""Labelled grids of pictures."""

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
            sheet.paste(_fitting(picture, cell), (MARGIN + i * pitch, top + TEXT + 4))
    return sheet


def captioned_rows(rows: Sequence[tuple[str, Sequence[tuple[str, Image.Image]]]], cell: int) -> Image.Image:
    """Return a white sheet of rows with a caption each, whose pictures have headings of one or two lines of their own.

    Short rows share a line, as far as the longest one is wide. Pictures fit into `cell` × `cell` pixels.
    """
    font, pitch, longest = ImageFont.load_default(TEXT - 5), cell + MARGIN, max(len(pictures) for _, pictures in rows)
    lines: list[list[tuple[str, Sequence[tuple[str, Image.Image]]]]] = []
    for row in rows:
        used = sum(len(pictures) for _, pictures in lines[-1]) if lines else longest
        if used + len(row[1]) > longest:
            lines.append([])
        lines[-1].append(row)
    height = cell + 3 * TEXT + MARGIN
    sheet = Image.new("RGB", (MARGIN + pitch * longest, MARGIN + height * len(lines)), "white")
    draw = ImageDraw.Draw(sheet)
    for j, line in enumerate(lines):
        column, top = 0, MARGIN + j * height
        for caption, pictures in line:
            draw.text((MARGIN + column * pitch, top), caption, "#444", font)
            for heading, picture in pictures:
                left = MARGIN + column * pitch
                draw.multiline_text((left, top + 3 * TEXT - 2), heading, "black", font, anchor="ld", spacing=1)
                sheet.paste(_fitting(picture, cell), (left, top + 3 * TEXT))
                column += 1
    return sheet


def _fitting(picture: Image.Image, cell: int) -> Image.Image:
    scale = cell / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
