"""The outline of the mask that mask nodes would make with other settings: a route, asked by the inspector's sliders."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from aiohttp import web
from server import PromptServer

from ...core.attention.refine import MOST_POWERS
from ...core.maps.masks import Shaping
from ...core.maps.outline import outline
from ...core.maps.saliency import Saliency
from ...core.maps.tuning import FILTERS, Tuning, tuned_masks
from .kept_maps import KEPT
from .requests import RequestError, read_object

ROUTE = "/explainable_latents/outline"

# What a mask node's inputs allow at most; larger windows would take the server's memory.
RANGES = {
    "value": (-10, 10),
    "smooth_sigma": (0, 64),
    "smooth_size": (1, 255),
    "dilate_size": (1, 255),
    "dilate_iterations": (0, 64),
    "part_count": (1, 64),
    "refine": (0, MOST_POWERS),
}
MOST_FILTERS = 8
MOST_LETTERS = 10_000


def add_route() -> None:
    """Let the server answer POST requests to ROUTE; nothing where ComfyUI runs without its server.

    A request is a JSON object: `maps`, the name of the maps' file; `item`, which picture of the batch; `shaping`, the
    settings of `Shaping` by name. It may also have `of_output`, whether the maps are meant that the node puts out
    instead of those that it shows, and `filters`, `words`, `frame`, `number`, `channels` and `refine` of `Tuning`. The
    answer is that of `tuned_outline`. Status 400 says what is wrong with a request, status 410 that the maps are gone,
    status 413 that they were too large to be kept.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ROUTE)(_answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        given = await read_object(request)
        name, item = _text(given, "maps"), _number(given, "item", 0, 1 << 20, int)
        tuning, of_output = read_tuning(given), _switch(given, "of_output") if "of_output" in given else False
    except RequestError as error:
        return error.response()
    kept = KEPT.get(name)
    if KEPT.is_too_large(name):
        return web.json_response({"error": "these maps are too large to be kept"}, status=413)
    if kept is None:
        return web.json_response({"error": "these maps are no longer there"}, status=410)
    saliency = kept.output if of_output else kept.shown
    if item >= saliency.maps.shape[1]:
        return RequestError(f"item {item}: there are {saliency.maps.shape[1]} pictures, counted from 0").response()
    # in a thread: the server goes on meanwhile
    return web.json_response(await asyncio.to_thread(tuned_outline, saliency, tuning, item))


@torch.inference_mode()
def tuned_outline(saliency: Saliency, tuning: Tuning, item: int) -> dict[str, Any]:
    """The mask of one picture as its outline: `lines`, four numbers each, see `outline`; `size`, width and height of
    its places; `inside`, its mean; `is_soft`, whether there are values between 0 and 1: the outline goes where they
    are 0.5. Where nodes would fail instead, `problem` says why.
    """
    try:
        mask = tuned_masks(saliency, tuning)[item]
    except ValueError as error:
        return {"problem": str(error)}
    return {
        "lines": outline(mask >= 0.5).flatten().tolist(),
        "size": [mask.shape[1], mask.shape[0]],
        "inside": float(mask.mean()),
        "is_soft": bool(((mask > 0) & (mask < 1)).any()),
    }


def read_tuning(given: Mapping[str, Any]) -> Tuning:
    """The `Tuning` of a request. Raises RequestError for a value of another kind or out of its range."""
    shaping = given.get("shaping")
    if not isinstance(shaping, Mapping):
        raise RequestError("the request needs shaping, the settings by name")
    frame, number, refine = given.get("frame"), given.get("number"), given.get("refine")
    try:
        return Tuning(
            _read_shaping(shaping),
            _read_filters(given.get("filters", [])),
            _text(given, "words") if "words" in given else "",
            None if frame is None else _text(given, "frame"),
            None if number is None else _number(given, "number", 0, 1 << 24, int),
            refine=None if refine is None else _number(given, "refine", *RANGES["refine"], int),
            **({"channels": _text(given, "channels")} if "channels" in given else {}),
        )
    except ValueError as error:
        raise RequestError(str(error)) from error


def _read_shaping(given: Mapping[str, Any]) -> Shaping:
    kinds = {field.name: type(field.default) for field in fields(Shaping)}
    if unknown := sorted(set(given) - set(kinds)):
        raise RequestError(f"shaping has no {', '.join(map(repr, unknown))[:200]}; it has {', '.join(kinds)}")
    values = {}
    for name in given:
        if kinds[name] is bool:
            values[name] = _switch(given, name)
        elif kinds[name] is str:
            values[name] = _text(given, name)
        else:
            values[name] = _number(given, name, *RANGES[name], kinds[name])
    return Shaping(**values)


def _read_filters(given: Any) -> tuple[tuple[str, float, int], ...]:
    if not isinstance(given, list) or len(given) > MOST_FILTERS:
        raise RequestError(f"filters has to be a list of at most {MOST_FILTERS}")
    found = []
    for each in given:
        if not isinstance(each, list) or len(each) != 3 or each[0] not in FILTERS:
            raise RequestError(f"a filter is [name, number, number], and its name one of {', '.join(FILTERS)}")
        smooths = each[0] == FILTERS[0]
        names = ("smooth_sigma", "smooth_size") if smooths else ("dilate_size", "dilate_iterations")
        values = dict(zip(names, each[1:], strict=True))
        kinds = (float if smooths else int, int)
        numbers = [_number(values, name, *RANGES[name], kind) for name, kind in zip(names, kinds, strict=True)]
        found.append((each[0], *numbers))
    return tuple(found)


def _switch(given: Mapping[str, Any], name: str) -> bool:
    value = given[name]
    if not isinstance(value, bool):
        raise RequestError(f"{name} has to be true or false")
    return value


def _text(given: Mapping[str, Any], name: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or len(value) > MOST_LETTERS:
        raise RequestError(f"{name} has to be a text of at most {MOST_LETTERS} letters")
    return value


def _number(given: Mapping[str, Any], name: str, low: float, high: float, kind: type) -> float:
    """A number of a request, whole where `kind` is int; a slider's 2.0 arrives as 2."""
    value = given.get(name)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or (kind is int and value != int(value)):
        raise RequestError(f"{name} has to be a {'whole ' if kind is int else ''}number from {low} to {high}")
    return kind(value)
