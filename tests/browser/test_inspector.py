"""The attention inspector under Saliency Overlay, by mouse and by keyboard, in both renderers."""

from __future__ import annotations

import base64
import io
import json
import re
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Locator, Route, expect

from explainable_latents.nodes.core.maps.packing import pack
from explainable_latents.nodes.core.maps.saliency import Saliency
from tests.tools.browser.front import SCREENSHOTS, Front, still_box
from tests.tools.thorough import THOROUGH, further

HEAT = "Heat maps"
HOSTILE = "<img src=x onerror=alert(1)>"  # the eighth word of TestSaliency


def inspect(front: Front, steps: int, words: int, side: int) -> Locator:
    """Run maps whose words stand side by side and wander down step by step, and return the inspector."""
    front.clear()
    front.add("TestSaliency", "Maps")
    front.set("Maps", steps=steps, words=words, side=side)
    front.add("ELSaliencyOverlay", HEAT, (450, 60))
    front.link("Maps", 0, HEAT, "saliency")
    front.look_at("Maps")
    front.press_run()
    return opened(front)


def opened(front: Front) -> Locator:
    """The inspector once it shows maps."""
    panel = front.panel(HEAT)
    expect(panel.locator("canvas")).to_be_visible()
    return panel


def words(panel: Locator) -> list[str]:
    """The words as they are ranked."""
    return [text.strip() for text in panel.locator(".el-words button span:first-child").all_inner_texts()]


def chosen(panel: Locator) -> str:
    return panel.locator(".el-words [aria-pressed=true] span:first-child").inner_text()


def brightest(panel: Locator) -> tuple[float, float]:
    """Where the shown map is strongest, as fractions of width and height."""
    data = panel.locator("canvas").evaluate("canvas => canvas.toDataURL().split(',')[1]")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("L")).astype(float)
    rows, columns = np.nonzero(picture >= np.quantile(picture, 0.99))
    return columns.mean() / picture.shape[1], rows.mean() / picture.shape[0]


def place(panel: Locator, x: float, y: float) -> dict[str, float]:
    """The position on the canvas element of a place given as fractions of the picture, which is square."""
    box = still_box(panel.locator("canvas"))
    side = min(box["width"], box["height"])
    return {"x": x * side, "y": y * side}


def state(panel: Locator) -> dict[str, Any]:
    """All that is chosen."""
    return {
        "word": chosen(panel),
        "ranked": words(panel),
        "step": panel.get_by_label("step").input_value(),
        "said": panel.get_by_role("status").inner_text(),
    }


def test_mouse(either_front: Front):
    front = either_front
    panel = inspect(front, steps=3, words=4, side=16)
    canvas = panel.locator("canvas")
    canvas.hover(position=place(panel, 2.5 / 4, 0.5 / 3))
    expect(panel.locator(".el-words button").first).to_contain_text("house")
    canvas.click(position=place(panel, 0.6 / 4, 0.5 / 3))
    expect(panel.get_by_role("status")).to_contain_text("column 3, row 3: dog")
    panel.get_by_role("button", name="tree").click()
    assert chosen(panel) == "tree"
    assert np.allclose(brightest(panel), (3.5 / 4, 0.5 / 3), atol=0.08)
    panel.get_by_label("step").fill("2")
    assert np.allclose(brightest(panel), (3.5 / 4, 2.5 / 3), atol=0.08)
    with front.page.expect_download() as download:
        panel.get_by_role("button", name="Save PNG").click()
    assert download.value.suggested_filename == "tree_step_2.png"
    assert Image.open(download.value.path()).size == (128, 128)
    front.shot(f"inspector-{'nodes2' if front.vue else 'classic'}")


def test_keyboard(open_front: Callable[..., Front], vue: bool):
    front = open_front(vue=vue)  # whose keys are listened to
    panel = inspect(front, steps=3, words=4, side=16)
    press = front.page.keyboard.press
    front.run("() => { window.heard = []; window.addEventListener('keydown', (event) => heard.push(event.key)); }")
    panel.locator("canvas").focus()
    expect(panel.get_by_role("status")).to_contain_text("column 9, row 9")
    for key in ("ArrowLeft", "Shift+ArrowLeft", "ArrowUp"):
        press(key)
    expect(panel.get_by_role("status")).to_contain_text("column 4, row 8")
    assert front.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("Tab")
    assert front.run("document.activeElement.closest('.el-words') !== null")
    assert front.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    focused = front.run("document.activeElement.firstChild.textContent")
    press("Enter")
    assert chosen(panel) == focused
    panel.get_by_label("step").focus()
    press("ArrowRight")
    expect(panel.get_by_label("step")).to_have_attribute("aria-valuetext", "step 1")
    assert front.run("heard") == ["Shift", "Tab"]  # no other key went on to the page, where users bind keys


@THOROUGH  # chips and sliders are tried after a reload, too
def test_reload_and_a_saved_workflow_keep_what_was_chosen(
    open_front: Callable[..., Front], shared_front: Callable[..., Front], vue: bool
):
    front = open_front(vue=vue)
    panel = inspect(front, steps=3, words=4, side=16)
    panel.get_by_role("button", name="cat").click()
    panel.get_by_label("step").fill("1")
    panel.locator("canvas").click(position=place(panel, 0.9, 0.9))
    before = state(panel)
    assert (before["word"], before["step"]) == ("cat", "1")
    assert before["said"].startswith("column 15, row 15:")
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    front.wait_until_kept("0.90625")  # the place: 14.5 / 16
    front.open()
    front.wait("app.graph.nodes.length === 2")
    assert state(opened(front)) == before
    other = shared_front(not vue)
    other.load(saved)
    assert state(opened(other)) == before


def test_maps_that_are_gone_are_asked_for_again(front: Front):
    inspect(front, steps=1, words=2, side=8)
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    for node in saved["nodes"]:
        node["properties"].get("el_inspector", {})["file"] = "nobody.maps"
    front.load(saved)
    expect(front.panel(HEAT).get_by_role("status")).to_contain_text("run again")
    front.set("Maps", steps=2)
    front.press_run()
    expect(opened(front).get_by_label("step")).to_be_visible()


TELL_WHEN_ANSWERED = """() => {
    const fetch = window.fetch;
    window.answered = false;
    window.fetch = async (...asked) => {
        const answer = await fetch(...asked);
        // behind everything that waits for this answer
        if (String(asked[0]).includes("nobody")) setTimeout(() => setTimeout(() => { window.answered = true; }));
        return answer;
    };
}"""


@pytest.mark.parametrize(("status", "body"), [further((404, "")), (200, "these are no maps")])
def test_a_late_answer_does_not_wipe_newer_maps(open_front: Callable[..., Front], status: int, body: str):
    """The request for the maps of an old run is answered when those of the next run are already there."""
    front = open_front()  # whose `fetch` is replaced
    inspect(front, steps=1, words=2, side=8)
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    for node in saved["nodes"]:
        node["properties"].get("el_inspector", {})["file"] = "nobody.maps"
    front.run(TELL_WHEN_ANSWERED)
    held: list[Route] = []

    def hold(route: Route) -> None:
        held.append(route)

    front.page.route("**/view?*nobody.maps*", hold)
    with front.page.expect_request("**/view?*nobody.maps*"):
        front.load(saved)
    front.set("Maps", steps=3)
    front.press_run()
    panel = opened(front)
    (late,) = held
    late.fulfill(status=status, body=body)
    front.wait("window.answered")
    expect(panel.locator("canvas")).to_be_visible()
    expect(panel.get_by_label("step")).to_have_attribute("max", "2")


def test_a_workflow_that_holds_anything_breaks_nothing(front: Front):
    inspect(front, steps=2, words=2, side=8)
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    (kept,) = (node["properties"]["el_inspector"] for node in saved["nodes"] if "el_inspector" in node["properties"])
    kept.update(word="<b>nobody</b>", frame="x", item=-3, x=None, y=7, opacity="y")
    front.load(saved)
    panel = opened(front)
    expect(panel.get_by_role("status")).to_contain_text("column 1, row 8")
    assert chosen(panel) == "dog"
    (front.server.base / "temp" / "other.maps").write_bytes(b"these are no maps")
    kept["file"] = "other.maps"
    front.load(saved)
    expect(front.panel(HEAT).get_by_role("status")).to_contain_text("run again")
    front.becomes(lambda: any("not a file of maps" in warning for warning in front.errors), True)
    front.errors.clear()


def test_words_are_text(front: Front):
    panel = inspect(front, steps=1, words=8, side=8)
    assert HOSTILE in words(panel)
    assert panel.locator("img").count() == 0
    expect(panel.get_by_label("step")).to_be_hidden()


INTERACTIONS = """async ([panel, count]) => {
    const canvas = panel.querySelector("canvas");
    const step = panel.querySelector("input[type=range]");
    const words = [...panel.querySelectorAll(".el-words button")];
    const box = canvas.getBoundingClientRect();
    const side = Math.min(box.width, box.height);
    const at = (i) => ({ clientX: box.left + (side * (i % 8)) / 8 + 1, clientY: box.top + (side * (i % 5)) / 5 + 1 });
    const acts = {
        hover: (i) => canvas.dispatchEvent(new PointerEvent("pointermove", at(i))),
        step: (i) => { step.value = i; step.dispatchEvent(new Event("input")); },
        word: (i) => words[i % words.length].click(),
    };
    const pixels = () => new Uint32Array(canvas.getContext("2d").getImageData(0, 0, 512, 512).data.buffer);
    const measured = {};
    for (const [name, act] of Object.entries(acts)) {
        measured[name] = { work: [], changed: 0 };
        for (let i = 1; i <= count; i++) {
            const before = pixels();
            const start = performance.now();
            act(i);
            panel.getBoundingClientRect();
            measured[name].work.push(performance.now() - start);
            measured[name].changed += pixels().some((pixel, i) => pixel !== before[i]);
            await new Promise(requestAnimationFrame);
        }
    }
    return measured;
}"""


def test_50_steps_of_8_words_stay_responsive(front: Front):
    """Every interaction shows something else at once; how long that takes is kept for people, not judged."""
    steps, side = 50, 64
    maps = torch.rand(steps * 8, 1, side, side, generator=torch.Generator().manual_seed(3))
    labels = tuple(f"word {w}, step {s}" for s in range(steps) for w in range(8))
    file = front.server.base / "temp" / "many.maps"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(pack(Saliency(maps, labels, 1.0, None, (side, side)), "fire", False))
    front.clear()
    front.add("ELSaliencyOverlay", HEAT)
    front.look_at(HEAT)
    graph = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    graph["nodes"][0]["properties"]["el_inspector"] = {"file": file.name, "type": "temp"}
    front.load(graph)
    panel = opened(front)
    measured = panel.evaluate("(panel, count) => (" + INTERACTIONS + ")([panel, count])", 40)
    report = {name: {"median": statistics.median(e["work"]), "worst": max(e["work"])} for name, e in measured.items()}
    (SCREENSHOTS / "inspector-milliseconds.json").write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report))
    for name, entry in measured.items():
        assert entry["changed"] == 40, name


def test_the_line_below_names_the_place_under_the_pointer(front: Front):
    panel = inspect(front, steps=1, words=4, side=16)
    panel.locator("canvas").click(position=place(panel, 0.5 / 4, 0.5))
    expect(panel.get_by_role("status")).to_contain_text("dog")
    panel.locator("canvas").hover(position=place(panel, 2.5 / 4, 0.5))
    expect(panel.get_by_role("status")).to_contain_text(re.compile("column 1[01], row [89]: house"))
    front.page.mouse.move(5, 5)
    expect(panel.get_by_role("status")).to_contain_text(re.compile("column [23], row [89]: dog"))


def test_a_word_that_is_there_three_times_is_three_words(front: Front):
    front.clear()
    front.add("TestSaliency", "Maps")
    front.set("Maps", steps=1, words=3, side=16, same=True)
    front.add("ELSaliencyOverlay", HEAT, (450, 60))
    front.link("Maps", 0, HEAT, "saliency")
    front.look_at("Maps")
    front.press_run()
    panel = opened(front)
    assert sorted(words(panel)) == ["dog#1", "dog#2", "dog#3"]
    panel.get_by_role("button", name="dog#3").click()
    assert chosen(panel) == "dog#3"
    assert panel.locator("[aria-pressed=true]").count() == 1
    assert abs(brightest(panel)[0] - 2.5 / 3) < 0.1


def test_there_is_one_opacity(either_front: Front):
    front = either_front
    panel = inspect(front, steps=1, words=2, side=8)
    front.add("EmptyImage", "Picture", (100, 600))
    front.set("Picture", width=64, height=64)
    front.link("Picture", 0, HEAT, "image")
    front.set(HEAT, opacity=0.25)
    front.press_run()
    slider = panel.get_by_label("opacity")
    expect(slider).to_have_value("25")
    slider.fill("40")
    assert front.value(HEAT, "opacity") == 0.4
    front.set(HEAT, opacity=0.9)
    expect(slider).to_have_value("90")
