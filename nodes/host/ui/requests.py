"""What the routes of this pack have in common: requests that are small JSON objects."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from aiohttp import web

# Far more than a prompt of the greatest length and its override take.
MOST_BYTES = 1 << 18


class RequestError(ValueError):
    """A request that cannot be answered, with what is wrong."""

    def response(self) -> web.Response:
        """The answer, with status 400."""
        return web.json_response({"error": str(self)}, status=400)


async def read_object(request: web.Request) -> Mapping[str, Any]:
    """The JSON object that was sent. Raises RequestError for anything else, and for more than MOST_BYTES."""
    body = bytearray()
    async for piece in request.content.iter_chunked(1 << 16):
        body += piece
        if len(body) > MOST_BYTES:
            raise RequestError(f"the request has more than {MOST_BYTES} bytes")
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise RequestError("the request is not JSON") from None
    if not isinstance(given, Mapping):
        raise RequestError("the request is not a JSON object")
    return given
