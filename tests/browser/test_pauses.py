"""Runs that wait for the user of a real browser: what is painted, chosen and typed there is what the run gets."""

from __future__ import annotations

import base64
import io
import json
import re
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, expect

from tests.tools.browser.front import Front, still_box
from tests.tools.comfyui.paths import TOY_CHECKPOINT
from tests.tools.thorough import THOROUGH, further

NODES = {
    "Checkpoint": "CheckpointLoaderSimple",
    "Prompt": "ELPromptWords",
    "Negative": "CLIPTextEncode",
    "Empty": "EmptyLatentImage",
    "First": "KSampler",
    "Mask": "ELMaskFromAttention",
    "Paint": "ELPaintMask",
    "Patch": "ELMaskedLatentModel",
    "Sampler": "KSampler",
    "Report": "ELMaskedLatentReport",
    "Text": "PreviewAny",
}
PAINTED = (
    ("Checkpoint", 1, "Prompt", "clip"),
    ("Checkpoint", 1, "Negative", "clip"),
    *((("Prompt", 0, name, "positive")) for name in ("First", "Sampler")),
    *((("Negative", 0, name, "negative")) for name in ("First", "Sampler")),
    *((("Empty", 0, name, "latent_image")) for name in ("First", "Sampler")),
    ("Checkpoint", 0, "First", "model"),
    ("Prompt", 1, "Mask", "subjects"),
    ("Mask", 0, "Paint", "masking"),
    ("Paint", 0, "Patch", "masking"),
    ("Checkpoint", 0, "Patch", "model"),
    ("First", 0, "Patch", "reference"),
    ("Patch", 0, "Sampler", "model"),
    ("Patch", 1, "Report", "report"),
    ("Sampler", 0, "Report", "samples"),
    ("Report", 2, "Text", "source"),
)
STEPS = (("Checkpoint", 0, "Pause", "model"), ("Pause", 0, "Sampler", "model"), ("Pause", 1, "Report", "report"))
# Notices are shown for some seconds only.
NOTICES = """() => {
    const notice = document.querySelector(".el-pause > [role=status]");
    window.notices = [];
    new MutationObserver(() => window.notices.push(notice.textContent)).observe(notice, { childList: true });
}"""
BADGE = "Paused at step {}/{}"


def build(front: Front, pauses: bool = False) -> None:
    """Put a graph on the page in which a mask is painted or, with `pauses`, values are changed."""
    front.clear()
    nodes = {**NODES, "Pause": "ELPauseSampling"} if pauses else NODES
    for i, (title, node_class) in enumerate(nodes.items()):
        front.add(node_class, title, (350 * (i % 5), 600 * (i // 5)))
    for link in PAINTED + (STEPS if pauses else ()):
        front.link(*link)
    front.set("Checkpoint", ckpt_name=TOY_CHECKPOINT.name)
    front.set("Prompt", text="a dog on the beach")
    front.set("Empty", width=64, height=64)
    front.set("First", steps=2)
    front.set("Sampler", steps=4)
    front.set("Patch", manipulate_at="2")


def queue(front: Front) -> str:
    """Press Run; returns the id of the run."""
    with front.page.expect_response(lambda answer: answer.url.endswith("/api/prompt")) as answer:
        front.page.get_by_test_id("queue-button").click()
    return answer.value.json()["prompt_id"]


def report(front: Front, run: str) -> str:
    """The report of a run that ends well."""
    entry = front.ended(run)
    assert entry["status"]["status_str"] == "success", entry["status"]
    node = front.run("app.graph.nodes.find((node) => node.title === 'Text').id")
    return "\n".join(entry["outputs"][str(node)]["text"])


def answers(text: str) -> list[dict[str, Any]]:
    """The answers in a report."""
    return json.loads(text.splitlines()[-1].removeprefix("answers: "))


def mask(text: str) -> np.ndarray:
    """The one mask in a report's answers."""
    ((png,),) = (each["masks"] for each in answers(text))
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))))


def panel(front: Front, step: int = 2, steps: int = 4) -> Locator:
    """The panel of a pause, once it is whole."""
    expect(front.page.get_by_role("button", name=BADGE.format(step, steps))).to_be_visible()
    shown = front.page.locator(".el-pause-panel")
    expect(shown).to_have_attribute("aria-busy", "false")
    expect(shown.get_by_role("img").first).to_be_visible()
    return shown


def gone(front: Front) -> None:
    """No pause is shown any more."""
    expect(front.page.locator(".el-pause-badge")).to_have_count(0)
    expect(front.page.locator(".el-pause-panel")).to_have_count(0)
    assert "⏸" not in front.page.title()


def stroke(front: Front, painter: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Draw a line on the painter, between shares of its width and height."""
    box = still_box(painter)
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in (start, end)]
    front.page.mouse.move(*places[0])
    front.page.mouse.down()
    front.page.mouse.move(*places[1], steps=4)
    front.page.mouse.up()


def test_what_is_painted_is_the_mask_of_the_run(either_front: Front):
    front = either_front
    build(front)
    run = queue(front)
    shown = panel(front)
    assert front.page.title().startswith("⏸")
    told = re.compile(r"If you do nothing, the run goes on as it is in [5-9]:\d\d\.")
    expect(shown.get_by_text(told)).to_be_visible()
    assert not shown.evaluate("panel => panel.contains(document.activeElement)")  # the user may be typing elsewhere
    painter = shown.locator(".el-painter")
    shown.get_by_role("button", name="clear").click()
    shown.get_by_label("size").fill("1")
    stroke(front, painter, (0.03, 0.56), (0.97, 0.56))
    shown.get_by_role("button", name="eraser").click()
    stroke(front, painter, (0.06, 0.56), (0.06, 0.56))
    stroke(front, painter, (0.5, 0.06), (0.5, 0.3))
    front.page.keyboard.press("Control+z")  # while the painter has the focus
    front.shot(f"pause-{'nodes2' if front.vue else 'classic'}")
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    expected = np.zeros((8, 8), np.uint8)
    expected[4, 1:] = 255
    text = report(front, run)
    assert np.array_equal(mask(text), expected)
    assert f"{7 / 64:.1%} inside" in text
    front.set("Paint", answers=text)
    again = queue(front)
    assert report(front, again).splitlines()[-1] == text.splitlines()[-1]
    gone(front)


def test_a_mask_that_is_left_alone_is_the_found_one_and_the_panel_opens_and_closes(either_front: Front):
    front = either_front
    build(front)
    run = queue(front)
    shown = panel(front)
    badge = front.page.get_by_role("button", name=BADGE.format(2, 4))
    badge.click()
    expect(shown).to_be_hidden()
    badge.click()
    shown.get_by_role("button", name="fill").click()
    shown.get_by_role("button", name="restore the found mask").click()
    shown.get_by_role("button", name="Continue").click()
    assert "answers" not in report(front, run)


@pytest.mark.parametrize("loads", [further("again"), "in another tab"])
def test_a_page_that_is_loaded_again_has_the_pause_and_the_draft(open_front, loads: str, vue: bool):
    front = open_front(vue=vue)
    others = [open_front(vue=vue)] if loads == "again" else []
    build(front)
    run = queue(front)
    shown = panel(front)
    shown.get_by_role("button", name="clear").click()
    shown.get_by_label("size").fill("1")
    stroke(front, shown.locator(".el-painter"), (0.03, 0.06), (0.97, 0.06))
    if loads == "again":
        front.page.reload()
    else:  # that the browser opens again: with what the tab had stored, and its name, by which the host knows it
        stored, name = front.run("[Object.entries(sessionStorage), window.name]")
        closed, front.page = front.page, front.context.new_page()
        closed.close()
        front.page.add_init_script(f"window.name = {json.dumps(name)}")
        front.page.add_init_script(f"for (const [key, value] of {json.dumps(stored)}) sessionStorage[key] = value")
        front.page.goto(front.server.url)
    shown = panel(front)
    assert [other.page.locator(".el-pause-badge").count() for other in others] == [0] * len(others)
    shown.get_by_role("button", name="Continue").click()
    gone(front)
    outputs = front.ended(run)["outputs"].values()
    (text,) = {shown["text"][0] for shown in outputs if "inside" in shown.get("text", [""])[0]}
    expected = np.zeros((8, 8), np.uint8)
    expected[0] = 255
    assert np.array_equal(mask(text), expected)


def test_by_the_keyboard_alone(either_front: Front):
    front = either_front
    build(front)
    run = queue(front)
    shown = panel(front)
    shown.get_by_role("button", name="clear").press("Enter")
    painter = shown.locator(".el-painter")
    painter.focus()
    for key in ("b", *"[[[[", "ArrowLeft", " ", "ArrowUp", " ", "e", " ", "Control+z", "ArrowRight", " ", "Enter"):
        front.page.keyboard.press(key)
    gone(front)
    expected = np.zeros((8, 8), np.uint8)
    expected[4, 3] = expected[3, 3] = 255
    assert np.array_equal(mask(report(front, run)), expected)


def test_values_are_changed_and_a_run_is_ended_or_cancelled(either_front: Front):
    front = either_front
    build(front, pauses=True)
    front.set("Pause", pause_at="1, 3")
    front.set("Sampler", cfg=3.0)
    run = queue(front)
    shown = panel(front, 1)
    field = shown.get_by_label("guidance scale")
    expect(field).to_have_value("3")
    field.fill("500")
    shown.get_by_role("button", name="Continue").click()
    expect(shown.get_by_role("alert")).to_contain_text("cfg has to be a number from 0 to 100")
    field.fill("5.5")
    shown.get_by_role("button", name="Continue").click()
    shown = panel(front, 3)
    expect(shown.get_by_label("guidance scale")).to_have_value("5.5")
    shown.get_by_role("button", name="More time").click()
    shown.get_by_role("button", name="End here").click()
    gone(front)
    assert answers(report(front, run)) == [{"step": 1, "values": {"cfg": 5.5}}, {"step": 3, "action": "end here"}]
    front.run(NOTICES)
    run = queue(front)
    panel(front, 1).get_by_role("button", name="Cancel the run").click()
    front.wait("window.notices.includes('The run was cancelled.')")
    gone(front)
    assert "execution_interrupted" in [kind for kind, _ in front.ended(run)["status"]["messages"]]


@THOROUGH
def test_who_closes_the_tab_is_waited_for_no_longer_than_the_time_that_was_left(open_front, vue: bool):
    front = open_front(vue=vue)
    build(front, pauses=True)
    front.set("Pause", time_limit=5, when_over="continue")
    with front.page.expect_response(re.compile(r"/explainable_latents/pauses/(?!here$)")):  # that it is seen
        run = queue(front)
    text = str(front.run("app.graph.nodes.find((node) => node.title === 'Text').id"))
    front.page.close()
    entry = front.ended(run)
    assert entry["status"]["status_str"] == "success", entry["status"]
    assert "step 2: the time was over, the run went on" in entry["outputs"][text]["text"][0]


@THOROUGH
def test_in_chinese(open_front):
    front = open_front(settings={"Comfy.Locale": "zh"})
    build(front, pauses=True)
    queue(front)
    expect(front.page.get_by_role("button", name="暂停于第 2/4 步")).to_be_visible()
    shown = front.page.locator(".el-pause-panel")
    expect(shown.get_by_text("如不操作")).to_be_visible()
    shown.get_by_role("button", name="继续").click()
    gone(front)


@THOROUGH  # a page of its own
def test_without_our_script_nobody_is_waited_for(open_front):
    front = open_front(javascript=False)
    build(front)
    assert "nobody was there to be asked" in report(front, queue(front))
    front.errors.clear()  # those of scripts that were not loaded
