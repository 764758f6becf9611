"""A browser that listens to a run."""

from __future__ import annotations

import asyncio

import pytest

BROWSER = "a browser"


@pytest.fixture
def sent(comfy):
    """While a node runs that this browser queued: what it was sent, as (event, data), since the last call."""
    import server
    from comfy_execution.utils import CurrentNodeContext

    loop = asyncio.new_event_loop()
    running = server.PromptServer(loop)
    running.client_id = BROWSER
    running.sockets[BROWSER] = object()

    def taken():
        loop.run_until_complete(asyncio.sleep(0))  # messages come from any thread by way of the loop
        return [running.messages.get_nowait() for _ in range(running.messages.qsize())]

    def messages():
        queued = taken()
        assert {client for _, _, client in queued} <= {BROWSER}
        return [(event, data) for event, data, _ in queued]

    messages.server, messages.drop = running, taken
    with CurrentNodeContext("a run", "7:3"):
        yield messages
    del server.PromptServer.instance
    loop.close()
