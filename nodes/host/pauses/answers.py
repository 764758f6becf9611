"""What a browser answers to a pause, checked before anything of it is used."""

from __future__ import annotations

import io
import json
import math
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from .messages import Value
from .pause import Refused

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The header of a PNG: its length, its name, width, height, bits, kind of colour, two bytes that are always 0, and
# whether it is interlaced.
_HEADER = struct.Struct(">I4sIIBBBBB")
_CHUNK = struct.Struct(">I4s")
_GREY = 0


@dataclass(frozen=True)
class Answer:
    """What the user chose.

    masks: for each picture 8-bit grey [h,w]; none to take what was shown. values: by name. to: which of the earlier
    stops to go back to; None for none. stop_at_end: whether to stop once more at the end of the run; None to leave it.
    """

    masks: tuple[np.ndarray, ...] = ()
    values: Mapping[str, Value] = field(default_factory=dict)
    to: int | None = None
    stop_at_end: bool | None = None


def read_png(data: bytes, size: tuple[int, int]) -> np.ndarray:
    """The grey values [h,w] of an 8-bit grey PNG of this size, (width, height).

    Its header is read before anything is decoded, and no more is unpacked than its pixels are. Raises Refused for any
    other data.
    """
    if len(data) < len(SIGNATURE) + _HEADER.size or not data.startswith(SIGNATURE):
        raise Refused(422, "a mask has to be a PNG")
    length, name, width, height, bits, colour, *_, interlaced = _HEADER.unpack_from(data, len(SIGNATURE))
    if (length, name) != (13, b"IHDR") or (bits, colour, interlaced) != (8, _GREY, 0):
        raise Refused(422, "a mask has to be a grey PNG of 8 bits, not interlaced")
    if (width, height) != size:
        raise Refused(422, f"a mask has {width}x{height} pixels instead of {size[0]}x{size[1]}")
    if not _has_pixels(data, height * (width + 1)):
        raise Refused(422, "a mask is not whole: it has fewer or more pixels than its header says")
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
            pixels = np.array(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise Refused(422, f"a mask cannot be read: {error}") from error
    if pixels.shape != (height, width) or pixels.dtype != np.uint8:
        raise Refused(422, "a mask has to be a grey PNG of 8 bits")
    return pixels


def _has_pixels(data: bytes, expected: int) -> bool:
    """Whether the packed pixels of a PNG are exactly so many bytes, and nothing is cut off.

    No more than that is unpacked.
    """
    unpacker, unpacked, place = zlib.decompressobj(), 0, len(SIGNATURE)
    try:
        while True:
            length, name = _CHUNK.unpack_from(data, place)
            place += _CHUNK.size
            if name == b"IEND":
                return unpacker.eof and unpacked == expected
            if name == b"IDAT":
                packed = unpacker.unconsumed_tail + data[place : place + length]
                unpacked += len(unpacker.decompress(packed, expected + 1 - unpacked))
                if unpacked > expected:
                    return False
            place += length + 4  # with its checksum
    except (struct.error, zlib.error):
        return False


def write_png(pixels: np.ndarray) -> bytes:
    """Grey values [h,w] of 8 bits as a PNG, which `read_png` reads."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def read_masks(files: Sequence[bytes], content: Mapping[str, Any]) -> tuple[np.ndarray, ...]:
    """The masks of an answer to the message with this `content`.

    Raises Refused for a wrong number of them, and as `read_png`.
    """
    expected = len(content["found"])
    if files and len(files) != expected:
        raise Refused(422, f"{len(files)} masks were sent, for {expected} pictures")
    return tuple(read_png(data, tuple(content["size"])) for data in files)


def read_values(text: str, content: Mapping[str, Any]) -> dict[str, Value]:
    """The values of an answer to the message with this `content`, from JSON. Raises Refused for an unknown name, a
    number out of its range, a text that is too long, and what is none.
    """
    try:
        given = json.loads(text)
    except (ValueError, RecursionError):
        raise Refused(422, "values is not JSON") from None
    if not isinstance(given, Mapping):
        raise Refused(422, "values is not a JSON object")
    offered = {each["name"]: each for each in content["values"]}
    values = {}
    for name, value in given.items():
        if name not in offered:
            raise Refused(422, f"there is no value {name[:40]!r} here; there are: {', '.join(offered) or 'none'}")
        if letters := offered[name].get("letters"):
            if not isinstance(value, str) or len(value) > letters:
                raise Refused(422, f"{name} has to be a text of at most {letters} letters")
            values[name] = value
            continue
        low, high = offered[name]["low"], offered[name]["high"]
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise Refused(422, f"{name} has to be a number from {low:g} to {high:g}")
        values[name] = float(value)
    return values


def read_stop(text: str, content: Mapping[str, Any]) -> int:
    """Which of the earlier stops that are in the message with this `content`. Raises Refused for none of them."""
    places = range(len(content["stops"]))
    if text not in map(str, places):
        raise Refused(422, f"to has to be one of the {len(places)} stops, counted from 0")
    return int(text)


def read_flag(text: str | None) -> bool | None:
    """What "true", "false" or nothing says. Raises Refused for anything else."""
    if text not in (None, "true", "false"):
        raise Refused(422, "stop_at_end has to be true or false")
    return None if text is None else text == "true"
