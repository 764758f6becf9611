"""The prompt of a run changes while it waits, on the real server: what is shown, what is sampled, what is recorded."""

from __future__ import annotations

import json
from typing import Any

import torch

from tests.workflows.answering import AnsweringBrowser
from tests.workflows.sampled import Graph, capture, node
from tests.workflows.test_pauses import AT, finished, graph, half, masked, painting, pausing, plain, text
from tests.workflows.test_pauses import attention as masking_by_attention

PROMPT, OTHER = "a dog on the beach", "a red car in a city"


def words(prompt: str = PROMPT) -> Graph:
    """The prompt, its words and what captures the attention to all of them."""
    choices = {"override": "", "parser": "auto", "words": "head noun", "which": "main subject"}
    return {
        "positive": node("ELPromptWords", clip=["model", 1], text=prompt, **choices),
        "capture": capture(["positive", 1], all_words=True),
    }


def live(pause_at: str = str(AT), **more: Any) -> Graph:
    """A run whose words and text can be changed before these steps."""
    made = pausing(pause_at, model=["capture", 0], attention=["capture", 1], clip=["model", 1], **more)
    return {**made, **words()}


def offered(pause: dict[str, Any]) -> dict[str, Any]:
    """The values that a pause offers."""
    return {each["name"]: each["value"] for each in pause["values"]}


def maps(browser: AnsweringBrowser, pause: dict[str, Any]) -> bytes:
    """The file of the heat maps of a pause."""
    return browser.get(f"/view?filename={pause['maps']['file']}&type=temp")


def shown(browser: AnsweringBrowser, pause: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The pause as it is sent again, with what other values give."""
    assert browser.answer(pause, "show", values=values).json()["state"] in ("sent", "shown")
    again = browser.pause()
    assert (again["id"], again["revision"]) == (pause["id"], pause["revision"] + 1)
    return again


def test_what_is_shown_on_request_is_what_the_run_would_have_predicted_and_changes_nothing(browser):
    """The oracle: runs that sample the other values from one step earlier on, by ComfyUI's own ranges."""
    run = browser.queue(live())
    first = browser.pause()
    assert offered(first) == {"cfg": 2.0, "prompt": PROMPT, "weights": ""}
    other = shown(browser, first, prompt=OTHER)
    assert offered(other) == {**offered(first), "prompt": OTHER}
    assert browser.answer(first, "continue").status_code == 409
    weighed = shown(browser, other, prompt=PROMPT, weights="dog: 4")
    scaled = shown(browser, weighed, prompt="", weights="", cfg=5.0)
    assert offered(scaled) == {**offered(first), "cfg": 5.0}
    back = shown(browser, scaled, cfg=2.0)
    assert len({pause["pictures"][0] for pause in (first, other, weighed, scaled)}) == 4
    assert (back["pictures"], maps(browser, back)) == (first["pictures"], maps(browser, first))
    assert browser.answer(back, "continue", values=offered(back)).ok
    assert torch.equal(finished(browser, run), plain(browser, graph(["model", 0])))
    assert text(browser, run).splitlines() == [f"step {AT}: the user let the run go on"]

    ranges = {**live(), **words(OTHER)}
    ranges["plain"] = node("CLIPTextEncode", clip=["model", 1], text=PROMPT)
    ranges["capture"]["inputs"]["positive"] = ["positive", 0]
    # the noise levels of 6 steps lie at 0, 20, 40, 60 ... percent of the schedule
    for name, source, start, end in (("start", "plain", 0.0, 0.3), ("end", "positive", 0.3, 1.0)):
        ranges[name] = node("ConditioningSetTimestepRange", conditioning=[source, 0], start=start, end=end)
    ranges["both"] = node("ConditioningCombine", conditioning_1=["start", 0], conditioning_2=["end", 0])
    ranges["sampler"]["inputs"]["positive"] = ["both", 0]
    run = browser.queue(ranges)
    pause = browser.pause()
    assert (pause["pictures"], maps(browser, pause)) == (other["pictures"], maps(browser, other))
    assert browser.answer(pause, "end here").ok
    assert browser.done(run) == "success"

    run = browser.queue(live(f"{AT - 1}, {AT}"))
    assert browser.answer(browser.pause(), "continue", values={"weights": "dog: 4"}).ok
    pause = browser.pause()
    assert (pause["pictures"], maps(browser, pause)) == (weighed["pictures"], maps(browser, weighed))
    assert browser.answer(pause, "continue").ok
    assert browser.done(run) == "success"


def test_another_text_is_sampled_from_there_on_and_repeated_without_a_user(browser):
    run = browser.queue(live(f"{AT}, {AT + 1}"))
    pause = browser.pause()
    assert browser.answer(pause, "continue", values={"prompt": OTHER, "weights": "car: 2"}).ok
    pause = browser.pause()
    assert offered(pause) == {"cfg": 2.0, "prompt": OTHER, "weights": "car: 2"}
    assert pause["maps"] is None  # none of the first words, which are not in the prompt any more
    again = shown(browser, pause)
    assert b'"car"' in maps(browser, again)
    assert b'"dog"' not in maps(browser, again)
    assert browser.answer(again, "continue", values={"prompt": PROMPT, "weights": ""}).ok
    changed = finished(browser, run)
    assert not torch.equal(changed, plain(browser, graph(["model", 0])))
    line = text(browser, run).splitlines()[-1]
    expected = [(AT, {"prompt": OTHER, "weights": "car: 2"}), (AT + 1, {"prompt": PROMPT, "weights": ""})]
    assert json.loads(line.removeprefix("answers: ")) == [{"step": step, "values": values} for step, values in expected]
    repeated = browser.queue(live(f"{AT}, {AT + 1}", answers=line), "")
    assert torch.equal(finished(browser, repeated), changed)


def test_what_is_wrong_with_words_is_said_and_the_pause_goes_on(browser):
    run = browser.queue(live())
    pause = browser.pause()
    wrong = {
        "'cat' is not in the prompt": {"weights": "cat: 2"},
        "'dog' is not in the prompt": {"prompt": OTHER, "weights": "dog: 2"},
        "must lie between": {"weights": "dog: 11"},
        "prompt has to be a text": {"prompt": 7},
        "at most 10000 letters": {"prompt": "x" * 10_001},
        "at most 1000 letters": {"weights": "dog: 2," * 200},
        "nested deeper": {"prompt": "(" * 100 + "dog" + ")" * 100},
    }
    for action in ("show", "continue"):
        for said, values in wrong.items():
            answer = browser.answer(pause, action, values=values)
            assert (answer.status_code, said in answer.json()["error"]) == (422, True), answer.text
    assert browser.answer(pause, "show", [half()]).status_code == 422
    assert browser.answer(pause, "continue").ok
    assert torch.equal(finished(browser, run), plain(browser, graph(["model", 0])))


def test_a_run_whose_masks_read_the_words_keeps_its_text(browser):
    """There the words can be weighed, but not exchanged: the mask would be that of other words."""
    made = painting(masking_by_attention())
    del made["paint"]
    made["patched"]["inputs"]["masking"] = ["found", 0]
    made |= {"capture": capture(["subjects", 0])}
    made["capture"]["inputs"]["model"] = ["patched", 0]
    paused = pausing(model=["capture", 0], attention=["capture", 1], clip=["model", 1])["paused"]
    made["paused"] = paused
    made["sampler"]["inputs"]["model"] = ["paused", 0]
    run = browser.queue(made)
    pause = browser.pause()
    assert offered(pause) == {"cfg": 2.0, "weights": ""}
    shown(browser, pause, weights="dog: 3")
    assert browser.answer({**pause, "revision": 1}, "continue").ok
    assert torch.equal(finished(browser, run), plain(browser, masked(masking_by_attention(), ["found", 0])))
