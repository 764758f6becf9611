"""The boxes of a layout while its text is typed: a route of ComfyUI's server, asked by the editor in the browser."""

from __future__ import annotations

import asyncio

from aiohttp import web
from server import PromptServer

from ..layouts import live_layout
from .requests import RequestError, read_object

ROUTE = "/explainable_latents/layout"
TEXTS = ("text", "numbers", "order")
LENGTHS = ("width", "height")


def add_route() -> None:
    """Let the server answer POST requests to ROUTE; nothing where ComfyUI runs without its server.

    A request has TEXTS and LENGTHS, the node's values. The answer is that of `live_layout`; a request that is no JSON
    object, or whose values are of another kind, is answered with status 400 and what is wrong.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ROUTE)(_answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        given = await read_object(request)
    except RequestError as error:
        return error.response()
    texts, lengths = ([given.get(name) for name in names] for names in (TEXTS, LENGTHS))
    are_texts = all(isinstance(value, str) for value in texts)
    if not are_texts or not all(type(value) is int and value > 0 for value in lengths):
        what = f"the request needs the texts {', '.join(TEXTS)} and the whole numbers {', '.join(LENGTHS)}, above 0"
        return RequestError(what).response()
    return web.json_response(await asyncio.to_thread(live_layout, *texts, *lengths))
