"""Points in a picture, as text: what users write, and what nodes that take points (SAM, KJNodes) read and write.

A point is (x, y) in pixels, from the picture's top left corner: the centre of the first pixel is (0.5, 0.5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

FORMS = '[[x, y], ...] or [{"x": 10, "y": 20}, ...]'

# Of the greatest depth inside a mask: points nearer to its outline than this are not chosen.
_OUTLINE = 0.25


def read_points(text: str, size: tuple[int, int]) -> Tensor:
    """The points of a JSON text, float32 [P,2]: `[[x, y], ...]` or `[{"x": 10, "y": 20}, ...]`.

    Further numbers of a point are ignored. The second form counts pixels from 0, as nodes with points do: its x = 10
    is the centre of that pixel, 10.5. Single quotes are read like double ones, as these nodes read them. size: (height,
    width) of the picture. Raises ValueError for any other text, for no points and for points outside of the picture.
    """
    try:
        given = json.loads(text.replace("'", '"'))
    except json.JSONDecodeError as error:
        raise ValueError(f"the points {text!r} are not a list of the form {FORMS}: {error}") from error
    if not isinstance(given, list) or not given:
        raise ValueError(f"the points {text!r} are not a list of at least one point, of the form {FORMS}")
    points = [_read(each) for each in given]
    height, width = size
    for x, y in points:
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"the point ({x:g}, {y:g}) is outside of the picture of {width}x{height} pixels")
    return torch.tensor(points, dtype=torch.float32)


def points_text(points: Tensor, confidence: Tensor) -> str:
    """Points [P,2] and how certain each is [P], as `[[x, y, confidence], ...]`."""
    rows = torch.cat([points, confidence[:, None]], 1).tolist()
    return json.dumps([[round(x, 2), round(y, 2), round(sure, 4)] for x, y, sure in rows])


def coordinates_text(points: Tensor) -> str:
    """Points [P,2] as `[{"x": 10, "y": 20}, ...]`, whole pixels counted from 0: what SAM and KJNodes read."""
    return json.dumps([{"x": math.floor(x), "y": math.floor(y)} for x, y in points.tolist()])


def spread_points(mask: Tensor, count: int) -> Tensor:
    """`count` points spread evenly over where a mask [H,W] is above 0.5, off its outline: pixel centres, [P,2].

    The first is the deepest inside; each further one is the farthest from those before it. Fewer if the mask has fewer
    pixels. The same mask always gives the same points. Raises ValueError for an empty mask.
    """
    inside = mask.cpu().numpy() > 0.5
    if not inside.any():
        raise ValueError("the mask is empty: nothing in it is above 0.5, so it has no points")
    depth = ndimage.distance_transform_edt(np.pad(inside, 1))[1:-1, 1:-1]
    rows, columns = np.nonzero(depth > _OUTLINE * depth.max())
    places = np.stack([columns, rows], 1).astype(np.float64)
    chosen = [int(depth[rows, columns].argmax())]
    distance = ((places - places[chosen[0]]) ** 2).sum(1)
    while len(chosen) < min(count, len(places)):
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, ((places - places[chosen[-1]]) ** 2).sum(1))
    return torch.from_numpy(places[chosen] + 0.5).float()


def _read(point: Any) -> tuple[float, float]:
    """One point of a list."""
    numbered = isinstance(point, dict)
    values: Sequence[Any] = [point.get("x"), point.get("y")] if numbered else point
    pair = list(values[:2]) if isinstance(values, list) else []
    if len(pair) < 2 or not all(isinstance(v, int | float) and math.isfinite(v) for v in pair):
        raise ValueError(f"{point!r} is not a point: write points as {FORMS}")
    x, y = (math.floor(v) + 0.5 if numbered else float(v) for v in pair)
    return x, y
