"""The words of a prompt while it is typed: a route of ComfyUI's server, asked by the chips in the browser."""

from __future__ import annotations

import asyncio

from aiohttp import web
from server import PromptServer

from ..parsed_words import live_words
from .requests import RequestError, read_object

ROUTE = "/explainable_latents/words"
FIELDS = ("text", "override", "parser", "words", "which")


def add_route() -> None:
    """Let the server answer POST requests to ROUTE; nothing where ComfyUI runs without its server.

    A request has FIELDS, the node's values. The answer is that of `live_words`; a request that is no JSON object, or
    whose values are no texts, is answered with status 400 and what is wrong.
    """
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(ROUTE)(_answer)


async def _answer(request: web.Request) -> web.Response:
    try:
        given = await read_object(request)
    except RequestError as error:
        return error.response()
    if not all(isinstance(given.get(name), str) for name in FIELDS):
        return RequestError(f"the request needs the texts {', '.join(FIELDS)}").response()
    # in a thread: a spaCy model takes seconds to load, and the server goes on meanwhile
    return web.json_response(await asyncio.to_thread(live_words, *(given[name] for name in FIELDS)))
