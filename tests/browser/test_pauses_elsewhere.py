"""Runs that wait, wherever the user is meanwhile: another workflow, a subgraph, without a connection; and batches."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Response, expect

from tests.browser.test_pauses import BADGE, NOTICES, answers, build, gone, panel, queue, report, stroke
from tests.tools.browser.front import Front, still_box
from tests.tools.thorough import THOROUGH

PIXELS = """canvas => [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]"""
ALPHA = """canvas => [...canvas.getContext("2d").getImageData(0, 0, 8, 8).data].filter((_, i) => i % 4 === 3)"""
# Pictures are there when the test says so.
HOLD = """() => {
    const { decode } = HTMLImageElement.prototype;
    const held = new Promise((resolve) => { window.release = resolve; });
    HTMLImageElement.prototype.decode = async function () { await held; return decode.call(this); };
}"""
CAPTURED = (
    ("Checkpoint", 0, "Capture", "model"),
    ("Prompt", 1, "Capture", "subjects"),
    ("Capture", 0, "Pause", "model"),
    ("Capture", 1, "Pause", "attention"),
    ("Checkpoint", 1, "Pause", "clip"),
)
IN_A_SUBGRAPH = """titles => {
    const nodes = app.graph.nodes.filter((node) => titles.includes(node.title));
    app.graph.convertToSubgraph(new Set(nodes));
}"""


def painted(text: str) -> list[np.ndarray]:
    """The masks of the one answer in a report, one for each picture."""
    (answer,) = answers(text)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(png)))) for png in answer["masks"]]


def ended_well(front: Front, run: str) -> str:
    """All texts of a run that ends well, once it has, whatever is on the page by now."""
    entry = front.ended(run)
    assert entry["status"]["status_str"] == "success", entry["status"]
    return "\n".join(line for shown in entry["outputs"].values() for line in shown.get("text", []))


def test_each_picture_of_a_batch_is_painted_alone(either_front: Front):
    front = either_front
    build(front)
    front.set("Empty", batch_size=2)
    run = queue(front)
    shown = panel(front)
    first, second = (shown.get_by_role("button", name=f"picture {number} of 2") for number in (1, 2))
    expect(first).to_have_attribute("aria-pressed", "true")
    shown.get_by_role("button", name="clear").click()
    second.click()
    expect(second).to_have_attribute("aria-pressed", "true")
    expect(first).to_have_attribute("aria-pressed", "false")
    shown.get_by_role("button", name="fill").click()
    shown.get_by_label("size").fill("1")
    shown.get_by_role("button", name="eraser").click()
    stroke(front, shown.locator(".el-painter"), (0.03, 0.06), (0.97, 0.06))
    front.shot("pause-batch")
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    expected = np.full((8, 8), 255, np.uint8)
    expected[0] = 0
    first, second = painted(report(front, run))
    assert not first.any()
    assert np.array_equal(second, expected)


@THOROUGH  # several runs
def test_heat_maps_and_picture_are_those_of_the_prompt_that_is_written(either_front: Front):
    front = either_front
    build(front, pauses=True)
    front.add("ELCaptureAttention", "Capture", (1800, 600))
    for link in CAPTURED:
        front.link(*link)
    front.set("Pause", pause_at="2")
    run = queue(front)
    shown = panel(front)
    words = shown.get_by_label("of the word")
    expect(words.locator("option")).to_have_text(["dog", "beach"])
    heat = shown.locator("canvas").first
    assert heat.evaluate("canvas => canvas.style.opacity") == "0"
    shown.get_by_label("heat map").fill("1")
    assert heat.evaluate("canvas => canvas.style.opacity") == "1"
    dog = heat.evaluate(PIXELS)
    words.focus()
    front.page.keyboard.type("b")  # chooses a word; the brush has this letter elsewhere
    expect(words).to_have_value("1")
    beach = heat.evaluate(PIXELS)
    assert dog != beach
    assert len(set(zip(*[iter(dog)] * 4, strict=True))) > 4  # colours, not a blank canvas
    front.shot("pause-heat")
    before = shown.get_by_role("img").first.get_attribute("src")
    shown.get_by_label("weights of words").fill("car: 2")
    show = shown.get_by_role("button", name="Show picture and heat maps for this")
    show.click()
    expect(shown.get_by_role("alert")).to_contain_text("'car' is not in the prompt")
    prompt = shown.get_by_label("prompt from here on")
    prompt.fill("a red car in a city")
    prompt.press("Enter")  # a new line, which is no answer
    prompt.press("Backspace")
    show.click()
    expect(words.locator("option").filter(has_text="car")).to_have_count(1)
    expect(words.locator("option").filter(has_text="dog")).to_have_count(0)
    assert shown.get_by_role("img").first.get_attribute("src") != before
    expect(show).to_be_focused()  # in the panel that was made anew
    assert heat.evaluate("canvas => canvas.style.opacity") == "1"
    assert heat.evaluate(PIXELS) not in (dog, beach)
    expect(shown.get_by_text("What was changed and not sent is lost then.")).to_be_visible()
    shown.get_by_label("weights of words").fill("car: 3")
    front.shot("pause-prompt")
    front.open()  # a page of another language may have left its settings on the server
    shown = panel(front)
    expect(shown.get_by_label("prompt from here on")).to_have_value("a red car in a city")
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    text = ended_well(front, run)
    assert answers(text) == [{"step": 2, "values": {"prompt": "a red car in a city", "weights": "car: 3"}}]


def test_a_pause_is_answered_from_another_workflow_though_its_node_is_deleted(either_front: Front):
    front = either_front
    build(front)
    run = queue(front)
    panel(front)
    front.run("app.graph.remove(app.graph.nodes.find((node) => node.title === 'Sampler'))")
    expect(front.page.get_by_role("button", name=BADGE.format(2, 4))).to_be_visible()
    front.run("async () => { await app.extensionManager.command.execute('Comfy.NewBlankWorkflow'); }")
    shown = panel(front)
    shown.get_by_role("button", name="fill").click()
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    text = ended_well(front, run)
    assert "answers: " in text
    assert "100.0% inside" in text


def test_a_pause_in_a_subgraph_is_shown_outside_of_it(either_front: Front):
    front = either_front
    build(front)
    front.run(IN_A_SUBGRAPH, ["Sampler", "Patch", "Paint"])
    run = queue(front)
    panel(front).get_by_role("button", name="Continue").click()
    gone(front)
    assert "inside" in ended_well(front, run)


def test_a_connection_that_breaks_brings_the_pause_back_with_the_draft(either_front: Front):
    front = either_front
    build(front)
    run = queue(front)
    shown = panel(front)
    shown.get_by_role("button", name="clear").click()
    shown.get_by_label("size").fill("1")
    stroke(front, shown.locator(".el-painter"), (0.03, 0.06), (0.97, 0.06))
    heard: list[str] = []

    def hear(answer: Response) -> None:
        _, _, what = answer.url.partition("/explainable_latents/pauses/")
        heard.extend([what] if what else [])

    front.page.on("response", hear)
    front.run("app.api.socket.close()")
    # announced by the new connection, and the pause seen once more
    front.becomes(lambda: "here" in heard and heard[-1] != "here", True)
    front.page.remove_listener("response", hear)
    shown = panel(front)
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    expected = np.zeros((8, 8), np.uint8)
    expected[0] = 255
    (mask,) = painted(report(front, run))
    assert np.array_equal(mask, expected)


@THOROUGH  # a slow page of its own
def test_who_goes_on_before_the_panel_is_whole_sends_what_was_painted(open_front: Callable[..., Front]):
    front = open_front()  # whose pictures are held back
    build(front)
    run = queue(front)
    shown = panel(front)
    shown.get_by_role("button", name="clear").click()
    shown.get_by_label("size").fill("1")
    stroke(front, shown.locator(".el-painter"), (0.03, 0.06), (0.97, 0.06))
    front.run(HOLD)
    front.run("app.api.socket.close()")
    expect(shown).to_have_attribute("aria-busy", "true")  # that of the new connection
    shown.get_by_role("button", name="Continue").click()
    front.run("window.release()")
    gone(front)
    expected = np.zeros((8, 8), np.uint8)
    expected[0] = 255
    (mask,) = painted(report(front, run))
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize(("force", "cells"), [(0.1, 1), (1.0, 4)])
def test_a_pen_paints_the_wider_the_harder_it_is_pressed(either_front: Front, force: float, cells: int):
    front = either_front
    build(front)
    run = queue(front)
    shown = panel(front)
    shown.get_by_role("button", name="clear").click()
    shown.get_by_label("size").fill("1")
    box = still_box(shown.locator(".el-painter"))
    place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}  # where four cells meet
    pen = {**place, "button": "left", "buttons": 1, "clickCount": 1, "pointerType": "pen", "force": force}
    session = front.context.new_cdp_session(front.page)
    for kind in ("mousePressed", "mouseReleased"):
        session.send("Input.dispatchMouseEvent", {**pen, "type": kind})
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    (mask,) = painted(report(front, run))
    assert mask.astype(bool).sum() == cells


def test_twenty_changes_are_taken_back_and_the_run_is_cancelled_from_the_queue(either_front: Front):
    front = either_front
    build(front)
    front.run(NOTICES)
    run = queue(front)
    shown = panel(front)
    for name in ["clear", "fill"] * 11:
        shown.get_by_role("button", name=name).click()
    painter = shown.locator(".el-painter")
    undo = shown.get_by_role("button", name="undo")
    for inside in [0, 255] * 10:
        undo.click()
        assert set(painter.evaluate(ALPHA)) == {inside}
    undo.click()  # the first two are not kept
    assert set(painter.evaluate(ALPHA)) == {255}
    front.page.get_by_role("button", name="Cancel current run").click()
    front.wait("window.notices.includes('The run was cancelled.')")
    gone(front)
    assert "execution_interrupted" in [kind for kind, _ in front.ended(run)["status"]["messages"]]


@pytest.mark.parametrize("then", ["continue", "cancel"])
def test_when_the_time_is_over_the_page_says_so(either_front: Front, then: str):
    front = either_front
    build(front, pauses=True)
    front.set("Pause", time_limit=1, when_over=then)
    front.run(NOTICES)
    run = queue(front)
    front.wait("window.notices.includes('The time was over.')")
    gone(front)
    if then == "continue":
        assert "step 2: the time was over, the run went on" in report(front, run)
    else:
        kinds = [kind for kind, _ in front.ended(run)["status"]["messages"]]
        assert "execution_interrupted" in kinds


def test_a_run_that_is_queued_during_a_pause_follows_and_stops_too(either_front: Front):
    front = either_front
    build(front, pauses=True)
    first = queue(front)
    shown = panel(front)
    shown.get_by_label("guidance scale").fill("6")
    second = queue(front)
    expect(shown.get_by_label("guidance scale")).to_have_value("6")
    assert front.page.locator(".el-pause-badge").count() == 1
    shown.get_by_role("button", name="Continue").click()
    assert answers(report(front, first)) == [{"step": 2, "values": {"cfg": 6}}]
    shown = panel(front)
    expect(shown.get_by_label("guidance scale")).to_have_value("8")
    shown.get_by_label("guidance scale").fill("5")
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    assert answers(report(front, second)) == [{"step": 2, "values": {"cfg": 5}}]
