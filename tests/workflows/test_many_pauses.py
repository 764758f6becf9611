"""Two hundred pauses that end in every way there is: nothing of them is left on the server."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from tests.workflows.answering import AnsweringBrowser
from tests.workflows.sampled import Graph, node
from tests.workflows.test_pauses import SIDE, attention, graph, painting, pausing, plain

PAUSES, WARM = 200, 40
MEGABYTE = 1 << 20
OF_STEPS = ("show", "end here")
WAYS = ("change", "cancel", "interrupt", "reload", "wrong", "go back", *OF_STEPS)


class Soak:
    """Runs one graph after the other and answers by chance.

    pauses: how many there were. ways: how they went, by kind.
    """

    def __init__(self, browser: AnsweringBrowser, seed: int) -> None:
        self.browser = browser
        self.chance = random.Random(seed)
        self.pauses = 0
        self.ways: set[tuple[str, str]] = set()

    def graph(self, **waits: Any) -> Graph:
        """A run with two pauses."""
        if self.chance.random() < 0.4:
            return painting(attention(), batch=self.chance.randint(1, 3), ask_at="each manipulated step", **waits)
        made = pausing("2, 4", alternative=["other", 0], clip=["model", 1], **waits)
        return {**made, "other": node("CLIPTextEncode", clip=["model", 1], text="a red car")}

    def run(self) -> None:
        """One run; of eight, the page is closed in one and does not come back in time."""
        leaves = self.chance.random() < 1 / 8
        made = self.graph(time_limit=1 if leaves else 0)
        made["sampler"]["inputs"]["seed"] = self.chance.randrange(2**32)
        run = self.browser.queue(made)
        while (pause := self.next_pause(run)) is not None:
            self.pauses += 1
            if leaves:
                self.ways.add((pause["kind"], "leave"))
                self.browser.disconnect()
                assert self.browser.done(run) == "success"
                self.browser.connect()
                self.browser.announce()
                return
            self.answer(pause)
        self.browser.done(run)

    def next_pause(self, run: str) -> dict[str, Any] | None:
        """The next pause of a run, None once it is over."""
        while True:
            kind, data = self.browser.next_message()
            if kind == "explainable_latents.pause" and data["run"] == run:
                return data
            ended = kind in ("execution_success", "execution_error", "execution_interrupted")
            if ended and data["prompt_id"] == run:
                assert kind != "execution_error", data
                return None

    def answer(self, pause: dict[str, Any]) -> None:
        """End a pause."""
        lacking = {*(() if pause["kind"] == "step" else OF_STEPS), *(() if pause["stops"] else ("go back",))}
        way = self.chance.choice([each for each in WAYS if each not in lacking])
        self.ways.add((pause["kind"], way))
        browser = self.browser
        browser.answer(pause, "seen")
        if way == "reload":
            browser.disconnect()
            browser.connect()
            assert browser.announce()["pauses"] == 1
            pause = browser.pause()
        elif way == "show":
            values = {"prompt": "a red car in a city", "weights": "city: 0.5", "cfg": 5.0}
            assert browser.answer(pause, "show", values=values).ok
            pause = browser.pause()
        elif way == "wrong":
            assert browser.answer(pause, "continue", [b"no picture"]).status_code == 422
        if way == "interrupt":
            assert browser.post("/interrupt", json={}).ok
        elif way in ("cancel", "end here"):
            assert browser.answer(pause, way).ok
        elif way == "go back":
            assert browser.answer(pause, way, to=str(self.chance.randrange(len(pause["stops"])))).ok
        else:
            given = browser.answer(pause, "continue", **self.changes(pause))
            assert given.ok, given.text

    def changes(self, pause: dict[str, Any]) -> dict[str, Any]:
        """Masks or values by chance, and whether to stop at the end."""
        if pause["kind"] == "end":
            return {}
        again = {"stop_at_end": self.chance.choice(["true", "false"])}
        if pause["kind"] == "mask":
            grey = np.random.default_rng(self.chance.randrange(2**32))
            return {"masks": [grey.integers(0, 256, (SIDE, SIDE), np.uint8) for _ in pause["found"]], **again}
        values = {"cfg": self.chance.uniform(0, 10), "blend": self.chance.random(), "prompt": "a cat in the snow"}
        return {"values": {**values, "weights": "cat: 1.5"}, **again}

    def left(self) -> dict[str, Any]:
        """What is alive on the server after a run without pauses, when the host has forgotten all runs."""
        plain(self.browser, graph(["model", 0]))
        assert self.browser.post("/history", json={"clear": True}).ok
        run = self.browser.queue({"left": node("TestLeftOver", seed=self.chance.randrange(2**32))})
        assert self.browser.done(run) == "success"
        return json.loads(self.browser.outputs(run)["left"]["text"][0])


@pytest.mark.matrix
def test_nothing_is_left_of_two_hundred_pauses(browser):
    soak = Soak(browser, seed=0)
    while soak.pauses < WARM:
        soak.run()
    before = soak.left()
    while soak.pauses < WARM + PAUSES:
        soak.run()
    after = soak.left()
    ways = {(kind, way) for kind in ("mask", "step") for way in (*WAYS, "leave")} - {("mask", way) for way in OF_STEPS}
    assert soak.ways >= ways | {("end", "change"), ("end", "go back")}
    assert before["alive"] == after["alive"] == []
    for kind in ("threads", "sockets", "events", "tensors"):
        assert after[kind] == before[kind], kind
    assert after["bytes"] - before["bytes"] < 32 * MEGABYTE
