"""Every line of the table of a pause's states, by a clock that the test sets."""

from __future__ import annotations

import pytest

from explainable_latents.nodes.host.pauses.messages import CANCEL, CONTINUE, END, ERROR, LEFT, TIMEOUT, UNSEEN
from explainable_latents.nodes.host.pauses.pause import (
    ANSWERED,
    CANCELLED,
    CLOSED,
    ORPHANED,
    SENT,
    SHOWN,
    Limit,
    Pause,
    Refused,
)
from explainable_latents.nodes.host.pauses.registry import MOST_REMEMBERED, Registry
from tests.host.pauses.clocks import Planned

CONTENT = {"run": "a run", "node": "5:12", "workflow": None, "step": 3}


@pytest.fixture
def time() -> Planned:
    return Planned()


def pause(time: Planned, seconds: float | None = 600.0, then: str = CONTINUE) -> Pause:
    return Pause("a browser", CONTENT, Limit(seconds, then), time.clock)


def shown(time: Planned, **limit) -> Pause:
    made = pause(time, **limit)
    made.seen(made.token, 0)
    return made


def refused(status: int):
    return pytest.raises(Refused, check=lambda error: error.status == status)


def test_a_new_pause_is_sent_and_its_message_has_what_an_answer_needs(time):
    one, other = pause(time), pause(time)
    assert (one.state, one.revision, one.reason, one.over.is_set()) == (SENT, 0, None, False)
    assert one.message() == {
        **CONTENT,
        "id": one.id,
        "token": one.token,
        "revision": 0,
        "seconds": 600.0,
        "left": 600.0,
        "then": CONTINUE,
        "grace": 60.0,
    }
    assert len({one.id, one.token, other.id, other.token}) == 4
    assert all(len(bytes.fromhex(text)) == 16 for text in (one.id, one.token))


def test_seen(time):
    made = shown(time)
    assert made.state == SHOWN
    time.time = 599
    assert made.tick(True) is False
    assert made.state == SHOWN


def test_unseen_it_is_sent_once_more_after_10_seconds_and_given_up_after_30(time):
    made = pause(time, then=CANCEL)
    sent = []
    for second in range(31):
        time.time = second
        if made.tick(True):
            sent.append(second)
    assert sent == [10]
    assert (made.state, made.reason, made.goes_on) == (CLOSED, UNSEEN, True)


def test_more_time_starts_the_clock_anew(time):
    made = shown(time, seconds=10)
    time.time = 9
    made.more_time(made.token, 0)
    assert made.left == 10
    time.time = 18
    made.tick(True)
    assert (made.state, made.left) == (SHOWN, 1)
    time.time = 19
    made.tick(True)
    assert (made.state, made.reason) == (CLOSED, TIMEOUT)


@pytest.mark.parametrize("limit", [None, 600.0])
@pytest.mark.parametrize(
    ("action", "state", "goes_on"), [(CONTINUE, ANSWERED, True), (END, ANSWERED, True), (CANCEL, CANCELLED, False)]
)
def test_an_answer_ends_it_with_what_was_answered(time, action, state, goes_on, limit):
    made = shown(time, seconds=limit)
    made.settle(made.token, 0, action, "what was painted")
    assert (made.state, made.reason, made.answer, made.goes_on) == (state, action, "what was painted", goes_on)
    assert made.over.is_set()
    assert made.closing() == {**CONTENT, "id": made.id, "reason": action}


def test_an_answer_that_is_refused_changes_nothing(time):
    made = shown(time)
    for act in (made.seen, made.more_time, lambda *who: made.settle(*who, CONTINUE, "painted")):
        with refused(403):
            act("0" * 32, 0)
        with refused(403):
            act("é", 0)  # compared in constant time, which needs bytes
        with refused(409):
            act(made.token, 1)
    assert (made.state, made.answer, made.over.is_set()) == (SHOWN, None, False)


@pytest.mark.parametrize("begin", [pause, shown])
def test_the_host_cancels(time, begin):
    made = begin(time)
    made.close(CANCEL)
    assert (made.state, made.reason, made.goes_on) == (CANCELLED, CANCEL, False)


@pytest.mark.parametrize(("then", "goes_on"), [(CONTINUE, True), (CANCEL, False)])
@pytest.mark.parametrize("begin", [pause, shown])
def test_without_a_connection_it_waits_60_seconds(time, begin, then, goes_on):
    made = begin(time, then=then)
    time.time = 5
    made.tick(False)
    assert made.state == ORPHANED
    time.time = 64.9
    made.tick(False)
    assert made.state == ORPHANED
    time.time = 65
    made.tick(False)
    assert (made.state, made.reason, made.goes_on) == (CLOSED, LEFT, goes_on)


def test_a_browser_that_comes_back_gets_it_again_and_older_answers_count_no_more(time):
    made = shown(time)
    before = made.id, made.token
    made.tick(False)
    assert made.shown_anew() is True
    assert (made.state, made.revision, (made.id, made.token)) == (SENT, 1, before)
    with refused(409):
        made.settle(made.token, 0, CONTINUE)
    made.seen(made.token, 1)
    made.settle(made.token, 1, CONTINUE)
    assert made.state == ANSWERED
    assert made.shown_anew() is False


def test_a_browser_without_websocket_may_still_answer(time):
    """Its websocket may be gone while requests still arrive."""
    made = shown(time)
    made.tick(False)
    made.settle(made.token, 0, CONTINUE)
    assert made.state == ANSWERED


def test_one_that_came_back_but_shows_nothing_is_given_up(time):
    made = shown(time)
    time.time = 20
    made.tick(False)
    made.shown_anew()
    time.time = 49
    made.tick(True)
    assert made.state == SENT
    time.time = 50
    made.tick(True)
    assert made.reason == UNSEEN


@pytest.mark.parametrize(("then", "goes_on"), [(CONTINUE, True), (CANCEL, False)])
@pytest.mark.parametrize("connected", [True, False])
def test_the_time_is_over(time, connected, then, goes_on):
    made = shown(time, seconds=8, then=then)
    made.tick(connected)
    time.time = 7.9
    made.tick(connected)
    assert not made.over.is_set()
    time.time = 8
    made.tick(connected)
    assert (made.state, made.reason, made.goes_on) == (CLOSED, TIMEOUT, goes_on)
    assert made.left == 0


def test_the_grace_is_a_part_of_the_time(time):
    made = shown(time, seconds=30)
    made.tick(False)
    time.time = 30
    made.tick(False)
    assert made.reason == TIMEOUT


def test_without_a_limit_it_waits_as_long_as_it_takes(time):
    made = shown(time, seconds=None)
    time.time = 1e6
    made.tick(True)
    assert (made.state, made.left, made.message()["seconds"]) == (SHOWN, None, None)


def test_an_exception_ends_it_and_what_is_over_stays_as_it_is(time):
    made = shown(time)
    made.close(ERROR)
    assert (made.state, made.reason) == (CLOSED, ERROR)
    made.close(CANCEL)
    made.tick(False)
    assert made.reason == ERROR
    for act in (made.seen, made.more_time, lambda *who: made.settle(*who, CONTINUE)):
        with refused(409):
            act(made.token, 0)


class Connection:
    """A websocket."""


def test_only_the_connection_that_was_announced_counts():
    registry, first, second = Registry(), Connection(), Connection()
    assert not registry.is_here("a browser", first)
    registry.announce("a browser", first)
    assert registry.is_here("a browser", first)
    assert not registry.is_here("a browser", second)  # a page without our script that has the same id
    assert not registry.is_here("a browser", None)
    assert not registry.is_here("another", first)
    registry.announce("a browser", second)  # a second tab, or one that was loaded again
    assert not registry.is_here("a browser", first)
    del second
    assert not registry.is_here("a browser", None)


def test_who_announces_itself_gets_its_own_pauses_again(time):
    registry, here = Registry(), Connection()
    mine, other, third = (Pause(client, CONTENT, Limit(None), time.clock) for client in ("me", "you", "me"))
    for each in (mine, other, third):
        registry.open(each)
    third.close(ERROR)
    assert registry.announce("me", here) == [mine]
    assert (mine.revision, other.revision, third.revision) == (1, 0, 0)


def test_a_pause_is_its_users_only(time):
    registry, made, first, second = Registry(), pause(time), Connection(), Connection()
    registry.announce(made.client, first, "ann")
    registry.open(made)
    assert registry.find(made.id, made.client, "ann") is made
    with refused(404):
        registry.find(made.id, made.client, "bob")
    with refused(403):
        registry.announce(made.client, second, "bob")
    assert registry.is_here(made.client, first)
    assert registry.announce(made.client, second, "ann") == [made]
    registry.close(made)
    assert registry.announce(made.client, first, "bob") == []


def test_a_pause_is_found_by_its_client_only_and_remembered_when_it_is_over(time):
    registry, made = Registry(), pause(time)
    registry.open(made)
    assert registry.find(made.id) is registry.find(made.id, "a browser") is made
    for wrong in (("unknown", None), ("unknown", "a browser"), (made.id, "another")):
        with refused(404):
            registry.find(*wrong)
    registry.close(made)
    assert len(registry) == 0
    with refused(409):
        registry.find(made.id, "a browser")
    with refused(404):
        registry.find(made.id, "another")
    for _ in range(MOST_REMEMBERED):
        later = pause(time)
        registry.open(later)
        registry.close(later)
    with refused(404):
        registry.find(made.id, "a browser")
