"""What the sampler's thread does while it waits: the host's own server and cancel, a clock that the test sets."""

from __future__ import annotations

import asyncio

import pytest

from tests.host.pauses.clocks import Planned

CLIENT = "a browser"
CONTENT = {"kind": "step", "step": 3, "values": []}


class Connection:
    """A websocket."""


@pytest.fixture
def server(comfy):
    """The host's server, with a run of a browser; `taken` gives what was sent, as (event, data, client)."""
    import server
    from comfy_execution.utils import CurrentNodeContext

    loop = asyncio.new_event_loop()
    running = server.PromptServer(loop)
    running.client_id = CLIENT
    running.sockets[CLIENT] = Connection()

    def taken() -> list[tuple]:
        loop.run_until_complete(asyncio.sleep(0))  # messages come from any thread by way of the loop
        return [running.messages.get_nowait() for _ in range(running.messages.qsize())]

    running.taken = taken
    with CurrentNodeContext("a run", "7:3"):
        yield running
    del server.PromptServer.instance
    loop.close()


@pytest.fixture
def registry(server):
    """With the browser announced."""
    from explainable_latents.nodes.host.pauses.registry import Registry

    made = Registry()
    made.announce(CLIENT, server.sockets[CLIENT])
    return made


class Asking:
    """Asks once, while the planned things happen; finds the pause as the browser does, by its message."""

    def __init__(self, server, registry, plan=None, **limit) -> None:
        from explainable_latents.nodes.host.pauses.pause import Limit

        self.server, self.registry = server, registry
        self.time = Planned(plan)
        self.limit = Limit(**{"seconds": 600.0, **limit})
        self.sent = []
        self.made = 0

    def __call__(self):
        from explainable_latents.nodes.host.pauses.asking import ask

        try:
            return ask(self.content, self.limit, self.registry, self.time.clock)
        finally:
            self.hear()

    def content(self) -> dict:
        self.made += 1
        return CONTENT

    def hear(self) -> dict:
        """The newest message of a pause."""
        self.sent += self.server.taken()
        return [data for event, data, _ in self.sent if event == "explainable_latents.pause"][-1]

    def do(self, name: str, *args) -> None:
        """As a browser that answers the newest message."""
        message = self.hear()
        pause = self.registry.find(message["id"], CLIENT)
        getattr(pause, name)(message["token"], message["revision"], *args)

    @property
    def events(self) -> list[str]:
        """What was sent, and why it was over."""
        return [data.get("reason", event.removeprefix("explainable_latents.")) for event, data, _ in self.sent]


def test_the_answer_is_what_the_run_gets_and_only_its_client_hears_of_it(server, registry):
    asking = Asking(server, registry)
    asking.time.plan = {1: lambda: asking.do("seen"), 2: lambda: asking.do("settle", "continue", "painted")}
    outcome = asking()
    assert (outcome.reason, outcome.answer) == ("continue", "painted")
    assert asking.events == ["pause", "continue"]
    assert {client for _, _, client in asking.sent} == {CLIENT}
    (_, message, _), (_, closing, _) = asking.sent
    assert (message["node"], message["run"], message["workflow"]) == ("7:3", "a run", None)
    assert (closing["id"], closing["node"], closing["step"]) == (message["id"], "7:3", 3)
    assert len(registry) == 0


@pytest.mark.parametrize("who", ["nobody queued it", "it has gone", "it came back without our script", "no server"])
def test_nothing_is_made_or_waited_for_where_nobody_can_answer(server, registry, who):
    import server as host

    if who == "nobody queued it":
        server.client_id = None
    elif who == "it has gone":
        del server.sockets[CLIENT]
    elif who == "no server":
        host.PromptServer.instance = None
    else:
        server.sockets[CLIENT] = Connection()
    asking = Asking(server, registry)
    from explainable_latents.nodes.host.pauses.asking import NOBODY, ask

    assert ask(asking.content, asking.limit, registry, asking.time.clock).reason == NOBODY
    assert (asking.made, asking.time.time, server.taken()) == (0, 0, [])
    host.PromptServer.instance = server


def test_a_message_that_nobody_shows_is_sent_twice_and_given_up(server, registry):
    asking = Asking(server, registry, then="cancel")
    assert asking().reason == "unseen"
    assert asking.events == ["pause", "pause", "unseen"]
    assert asking.time.time == pytest.approx(30, abs=0.5)  # looked at every quarter of a second


@pytest.mark.parametrize("then", ["continue", "cancel"])
@pytest.mark.parametrize("why", ["left", "timeout"])
def test_who_does_not_come_back_or_answer_in_time(server, registry, then, why):
    from comfy.model_management import InterruptProcessingException

    asking = Asking(server, registry, seconds=100.0, then=then)
    asking.time.plan = {5: lambda: asking.do("seen")}
    if why == "left":
        asking.time.plan[10] = server.sockets.clear
    if then == "cancel":
        with pytest.raises(InterruptProcessingException):
            asking()
    else:
        assert asking().reason == why
    assert asking.events == ["pause", why]
    assert asking.time.time == pytest.approx(70 if why == "left" else 100, abs=0.5)
    assert len(registry) == 0


def test_who_comes_back_in_time_answers(server, registry):
    asking = Asking(server, registry)

    def come_back() -> None:
        server.sockets[CLIENT] = Connection()
        (pause,) = registry.announce(CLIENT, server.sockets[CLIENT])
        server.send_sync("explainable_latents.pause", pause.message(), CLIENT)

    asking.time.plan = {
        1: lambda: asking.do("seen"),
        2: server.sockets.clear,
        61: come_back,
        62: lambda: asking.do("seen"),
        500: lambda: asking.do("settle", "end here", None),
    }
    assert asking().reason == "end here"
    assert asking.events == ["pause", "pause", "end here"]
    assert [data["revision"] for event, data, _ in asking.sent if event.endswith("pause")] == [0, 1]


@pytest.mark.parametrize("seen", [True, False])
def test_the_hosts_cancel_ends_the_wait(server, registry, seen):
    import nodes
    from comfy.model_management import InterruptProcessingException

    asking = Asking(server, registry)
    asking.time.plan = {2: nodes.interrupt_processing}
    if seen:
        asking.time.plan[1] = lambda: asking.do("seen")
    with pytest.raises(InterruptProcessingException):
        asking()
    assert asking.events == ["pause", "cancel"]
    assert asking.time.time == pytest.approx(2, abs=0.5)


def test_the_users_cancel_cancels_the_run(server, registry):
    from comfy.model_management import InterruptProcessingException

    asking = Asking(server, registry)
    asking.time.plan = {1: lambda: asking.do("settle", "cancel", None)}
    with pytest.raises(InterruptProcessingException):
        asking()
    assert asking.events == ["pause", "cancel"]


def test_whatever_goes_wrong_the_pause_is_over(server, registry):
    asking = Asking(server, registry)

    def fail() -> None:
        raise RuntimeError("a fault")

    asking.time.plan = {1: fail}
    with pytest.raises(RuntimeError, match="a fault"):
        asking()
    assert asking.events == ["pause", "error"]
    assert len(registry) == 0
