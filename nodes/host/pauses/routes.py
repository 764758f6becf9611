"""How a browser reaches the pauses: two routes of ComfyUI's server. See `messages` for what they take and answer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from aiohttp import BodyPartReader, web
from server import PromptServer

from ..ui.requests import RequestError, read_object
from .answers import Answer, read_flag, read_masks, read_stop, read_values
from .messages import ANSWER, AT_END, BACK, CONTINUE, END, HERE, MASK, MORE_TIME, PAUSE, SEEN, SHOW, STEP
from .pause import Pause, Refused
from .registry import PAUSES

MOST_BYTES = 8 << 20  # of all masks of an answer
MOST_VALUES = 100_000  # bytes of the values, of which some are texts
MOST_LETTERS = 10_000  # of any other field
MOST_FIELDS = 1024
_FIELDS = ("client", "token", "revision", "action", "values", "to", "stop_at_end")


def add_routes() -> None:
    """Let the server answer; nothing where ComfyUI runs without its server."""
    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post(HERE)(_here)
        server.routes.post(ANSWER)(_answer)


async def _here(request: web.Request) -> web.Response:
    try:
        client = (await read_object(request)).get("client_id")
    except RequestError as error:
        return error.response()
    if not isinstance(client, str) or not 0 < len(client) <= MOST_LETTERS:
        return RequestError("the request needs client_id, a text").response()
    server = PromptServer.instance
    socket = server.sockets.get(client)
    try:
        again = [] if socket is None else PAUSES.announce(client, socket, _user(request))
    except Refused as refused:
        return _said(refused)
    for pause in again:
        server.send_sync(PAUSE, pause.message(), client)
    return web.json_response({"connected": socket is not None, "pauses": len(again)})


async def _answer(request: web.Request) -> web.Response:
    try:
        PAUSES.find(request.match_info["id"])
        sent = await _read(request)
        pause = PAUSES.find(request.match_info["id"], sent.field("client"), _user(request))
        await _apply(pause, sent)
    except Refused as refused:
        return _said(refused)
    return web.json_response({"state": pause.state, "left": pause.left})


def _user(request: web.Request) -> str:
    """The user of ComfyUI who sends a request: with --multi-user as its header says, else the only one.

    Raises Refused for one that ComfyUI does not know.
    """
    try:
        return PromptServer.instance.user_manager.get_request_user_id(request)
    except KeyError as unknown:
        raise Refused(403, "ComfyUI does not know this user") from unknown


def _said(refused: Refused) -> web.Response:
    return web.json_response({"error": str(refused)}, status=refused.status)


@dataclass
class _Sent:
    """The parts of an answer, as they arrived. fields: by name. masks: the files."""

    fields: dict[str, str] = field(default_factory=dict)
    masks: list[bytes] = field(default_factory=list)

    def field(self, name: str) -> str:
        """A field that has to be there."""
        if name not in self.fields:
            raise Refused(422, f"the answer has no {name}")
        return self.fields[name]


async def _apply(pause: Pause, sent: _Sent) -> None:
    """Do what the answer asks for. Raises Refused for an answer that cannot be taken."""
    token, action, revision = sent.field("token"), sent.field("action"), sent.field("revision")
    if not (revision.isascii() and revision.isdigit() and len(revision) < 10):
        raise Refused(422, "revision has to be a whole number")
    who = token, int(revision)
    pause.check(*who)
    content = pause.message()
    if action not in content["actions"]:
        raise Refused(422, f"action has to be one of: {', '.join(content['actions'])}")
    kind = content["kind"]
    if (sent.masks and (kind, action) != (MASK, CONTINUE)) or (
        "values" in sent.fields and (kind != STEP or action not in (CONTINUE, SHOW))
    ):
        raise Refused(422, "masks go with the action continue of a mask's pause, values with that or show of a step's")
    if ("to" in sent.fields) != (action == BACK) or (
        "stop_at_end" in sent.fields and (kind == AT_END or action not in (CONTINUE, END))
    ):
        raise Refused(422, "to goes with the action go back, stop_at_end with continue and end here before the end")
    if action == SEEN:
        pause.seen(*who)
    elif action == MORE_TIME:
        pause.more_time(*who)
    else:
        # in a thread: the server goes on meanwhile
        answer = await asyncio.to_thread(_answer_of, sent, pause)
        if action == SHOW:
            pause.want(*who, answer.values)
        else:
            pause.settle(*who, action, answer)


def _answer_of(sent: _Sent, pause: Pause) -> Answer:
    """The masks and values of an answer. Raises Refused for those that the pause cannot take."""
    content = pause.message()
    to = read_stop(sent.fields["to"], content) if "to" in sent.fields else None
    values = read_values(sent.fields.get("values", "{}"), content)
    answer = Answer(read_masks(sent.masks, content), values, to, read_flag(sent.fields.get("stop_at_end")))
    try:
        pause.check_values(answer.values)
    except ValueError as problem:
        raise Refused(422, str(problem)) from problem
    return answer


async def _read(request: web.Request) -> _Sent:
    """The parts of a request. Raises Refused for more than MOST_BYTES, while they arrive, and for unknown parts."""
    if request.content_type != "multipart/form-data":
        raise Refused(422, "an answer is sent as multipart/form-data")
    if (request.content_length or 0) > 2 * MOST_BYTES:
        raise Refused(413, f"the answer has more than {MOST_BYTES} bytes")
    sent, left = _Sent(), MOST_BYTES
    try:
        reader = await request.multipart()
        while (part := await reader.next()) is not None:
            name = part.name if isinstance(part, BodyPartReader) else None
            known = name == "mask" or (name in _FIELDS and name not in sent.fields)
            if not known or len(sent.masks) >= MOST_FIELDS:
                raise Refused(422, "the answer has a part that is not expected")
            data = await _bytes(part, left if name == "mask" else MOST_VALUES if name == "values" else MOST_LETTERS)
            if name == "mask":
                left -= len(data)
                sent.masks.append(data)
            else:
                sent.fields[name] = data.decode()
    except (ValueError, AssertionError) as error:  # what aiohttp raises for a broken body, and decode for no text
        raise Refused(422, f"the answer cannot be read: {str(error)[:200]}") from error
    return sent


async def _bytes(part: Any, most: int) -> bytes:
    data = bytearray()
    while piece := await part.read_chunk(1 << 16):
        data += piece
        if len(data) > most:
            raise Refused(413, f"a part of the answer has more than {most} bytes")
    return bytes(data)
