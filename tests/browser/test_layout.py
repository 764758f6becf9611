"""Layout from Text: boxes on the node, moved, resized, drawn and removed by mouse and keyboard, always in its text."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator, Response, expect

from tests.tools.browser.front import Front, still_box
from tests.tools.thorough import THOROUGH

NODE = "Layout"
TEXT = "dog: left half; ball: 0.6, 0.7, 0.2, 0.2"


def opened(front: Front, text: str = TEXT) -> Locator:
    """The panel of a new node with this text, when its boxes are there."""
    front.clear()
    front.add("ELLayoutFromText", NODE, (200, 60))
    front.set(NODE, text=text)
    panel = front.panel(NODE)
    expect(panel.get_by_role("button", name=text.split(":")[0])).to_be_visible()
    return panel


def answer_to(text: str) -> Callable[[Response], bool]:
    """Whether a response is the server's to this text: an older text may be answered after a newer one was typed."""
    return lambda answer: (
        answer.url.endswith("/explainable_latents/layout") and (answer.request.post_data_json["text"] == text)
    )


def box_of(panel: Locator, words: str) -> Locator:
    return panel.locator(".el-box").filter(has_text=words)


def drag(front: Front, panel: Locator, start: tuple[float, float], end: tuple[float, float]) -> None:
    """Drag on the stage, from and to shares of the picture."""
    stage = still_box(panel.locator(".el-stage"))
    points = [(stage["x"] + x * stage["width"], stage["y"] + y * stage["height"]) for x, y in (start, end)]
    front.page.mouse.move(*points[0])
    front.page.mouse.down()
    front.page.mouse.move(*points[1], steps=4)
    front.page.mouse.up()


def sides(panel: Locator, words: str) -> list[float]:
    """Left, top, width and height of a box in percent, as it is announced."""
    label = box_of(panel, words).get_attribute("aria-label")
    return [float(part.split()[-2]) for part in label.replace(" %", " %,").split(",") if "%" in part]


def near(found: list[float], expected: list[float]) -> bool:
    """Within two percent of the picture: a pixel of the page is up to 0.5 %."""
    return all(abs(one - other) <= 2 for one, other in zip(found, expected, strict=True))


def test_a_box_is_dragged_and_resized_by_mouse(either_front: Front):
    front = either_front
    panel = opened(front)
    front.shot(f"layout-{'nodes2' if front.vue else 'classic'}")
    drag(front, panel, (0.7, 0.8), (0.8, 0.3))
    front.wait("text => app.graph.nodes[0]?.widgets[0].value !== text", TEXT)
    text = front.value(NODE, "text")
    assert text.startswith("dog: left half; ball: 0.")
    assert near([100 * float(number) for number in text.split("ball: ")[1].split(", ")], [70, 20, 20, 20])
    assert near(sides(panel, "ball"), [70, 20, 20, 20])
    drag(front, panel, (0.885, 0.3), (0.935, 0.9))  # the right edge, not the bottom
    front.wait("text => app.graph.nodes[0]?.widgets[0].value !== text", text)
    assert near(sides(panel, "ball"), [70, 20, 25, 20])
    text = front.value(NODE, "text")
    drag(front, panel, (0.25, 0.5), (0.35, 0.9))  # down it cannot go
    front.wait("text => app.graph.nodes[0]?.widgets[0].value !== text", text)
    assert near(sides(panel, "dog"), [10, 0, 50, 100])
    text = front.value(NODE, "text")
    assert text.startswith("dog: ")
    assert "%, 0%, " in text
    assert "%, 100%; ball: 0." in text  # a named place becomes percent; the other entry keeps its unit


def test_a_box_is_changed_by_keyboard_and_the_server_reads_the_same(either_front: Front):
    front = either_front
    panel = opened(front, "dog: 0.1, 0.2, 0.3, 0.4\ncat: 50%, 50%, 25%, 25%")
    dog = box_of(panel, "dog")
    dog.focus()
    for key in ("ArrowRight", "Shift+ArrowDown", "Control+ArrowRight", "Control+Shift+ArrowUp"):
        front.page.keyboard.press(key)
    assert front.value(NODE, "text") == "dog: 0.11, 0.25, 0.31, 0.35\ncat: 50%, 50%, 25%, 25%"
    front.page.keyboard.press("Tab")
    expect(box_of(panel, "cat")).to_be_focused()
    for _ in range(6):
        front.page.keyboard.press("Shift+ArrowRight")  # up to the edge
    assert front.value(NODE, "text").endswith("cat: 75%, 50%, 25%, 25%")
    text = "dog: 0.11, 0.25, 0.31, 0.35\ncat: 74%, 50%, 25%, 25%"
    with front.page.expect_response(answer_to(text)) as answer:
        front.page.keyboard.press("ArrowLeft")
    (_, cat) = answer.value.json()["boxes"]
    assert cat["box"] == {"words": "cat", "left": 0.74, "top": 0.5, "right": 0.99, "bottom": 0.75}
    assert sides(panel, "cat") == [74, 50, 25, 25]
    front.run("app.canvas.selectItems(app.graph.nodes)")
    box_of(panel, "cat").focus()
    front.page.keyboard.press("Delete")
    assert front.value(NODE, "text") == "dog: 0.11, 0.25, 0.31, 0.35"
    expect(dog).to_be_focused()
    front.page.keyboard.press("Backspace")
    assert front.value(NODE, "text") == ""
    expect(panel.get_by_role("button", name="Add a box")).to_be_focused()
    assert front.run("app.graph.nodes.length") == 1  # a box was removed, not the node
    front.page.keyboard.press("Enter")
    assert front.value(NODE, "text") == "thing: 35%, 35%, 30%, 30%"
    expect(panel.get_by_label("Words of the chosen box")).to_be_focused()
    front.page.keyboard.type("a red; ball")
    front.page.keyboard.press("Enter")
    front.wait("app.graph.nodes[0]?.widgets[0].value === 'a red ball: 35%, 35%, 30%, 30%'")
    expect(box_of(panel, "a red ball")).to_be_focused()


def test_the_list_of_a_language_model_keeps_its_form(either_front: Front):
    front = either_front
    before = "Objects: [('a dog', [0, 0, 256, 512])]\nBackground prompt: a beach"
    front.clear()
    front.add("ELLayoutFromText", NODE, (200, 60))
    front.set(NODE, text=before)
    panel = front.panel(NODE)
    box_of(panel, "a dog").focus()
    front.page.keyboard.press("Shift+ArrowRight")
    text = "Objects: [('a dog', [26, 0, 256, 512]){}]\nBackground prompt: a beach"
    assert front.value(NODE, "text") == text.format("")
    panel.get_by_role("button", name="Add a box").click()
    assert front.value(NODE, "text") == text.format(", ('thing', [179, 179, 154, 154])")
    front.page.keyboard.type("a dog's 🦴")
    named = text.format(", ('a dog\\'s 🦴', [179, 179, 154, 154])")
    with front.page.expect_response(answer_to(named)) as answer:
        front.page.keyboard.press("Enter")
    assert front.value(NODE, "text") == named
    assert [each["box"]["words"] for each in answer.value.json()["boxes"]] == ["a dog", "a dog's 🦴"]
    box_of(panel, "🦴").focus()
    front.page.keyboard.press("ArrowUp")  # behind a character of two units
    assert front.value(NODE, "text") == text.format(", ('a dog\\'s 🦴', [179, 174, 154, 154])")
    front.page.keyboard.press("Delete")
    assert front.value(NODE, "text") == text.format("")


def test_a_box_is_drawn_and_undone(either_front: Front):
    front = either_front
    panel = opened(front, "dog: left half")
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")  # the front end has seen all that was there before
    drag(front, panel, (0.6, 0.1), (0.9, 0.4))
    expect(box_of(panel, "thing")).to_be_visible()
    text = front.value(NODE, "text")
    assert text.startswith("dog: left half\nthing: ")
    assert near(sides(panel, "thing"), [60, 10, 30, 30])
    box_of(panel, "dog").press("ArrowRight")
    assert front.value(NODE, "text").startswith("dog: 1%, 0%, 50%, 100%\nthing: ")
    front.press("Control+z")
    front.wait("text => app.graph.nodes[0]?.widgets[0].value === text", text)
    front.press("Control+z")
    front.wait("app.graph.nodes[0]?.widgets[0].value === 'dog: left half'")
    panel = front.panel(NODE)
    expect(panel.locator(".el-box")).to_have_count(1)
    front.press("Control+y")
    front.wait("text => app.graph.nodes[0]?.widgets[0].value === text", text)
    expect(front.panel(NODE).locator(".el-box")).to_have_count(2)


def test_a_mistake_is_told_and_nothing_can_be_moved(either_front: Front):
    front = either_front
    panel = opened(front)
    front.set(NODE, text="<b>dog</b>: lft half")
    expect(panel.get_by_text("'<b>dog</b>: lft half': 'lft half' is no place")).to_be_visible()
    expect(panel.locator(".el-box")).to_have_count(0)
    expect(panel.get_by_role("button", name="Add a box")).to_be_disabled()
    front.set(NODE, text="")
    expect(panel.get_by_role("button", name="Add a box")).to_be_enabled()
    front.set(NODE, text="dog: 0.2, 0, 0.5, 1", order="left, top, right, bottom")
    expect(box_of(panel, "dog")).to_have_attribute("aria-label", "dog: left 20 %, top 0 %, width 30 %, height 100 %")
    box_of(panel, "dog").press("ArrowRight")
    assert front.value(NODE, "text") == "dog: 0.21, 0, 0.51, 1"


@THOROUGH  # a page that is loaded again
def test_boxes_of_a_linked_text_are_those_of_the_last_run_and_stay_after_a_reload(open_front, vue):
    front = open_front(vue=vue)
    front.clear()
    front.add("PrimitiveStringMultiline", "Answer", (0, 60))
    front.set("Answer", value='```json\n[{"bbox_2d": [0, 0, 500, 1000], "label": "dog"}]\n```')
    front.add("ELLayoutFromText", NODE, (450, 60))
    front.set(NODE, width=384)
    front.link("Answer", 0, NODE, "text")
    panel = front.panel(NODE)
    expect(panel.get_by_role("status")).to_have_text("The text comes from another node: run to see its boxes.")
    expect(panel.locator(".el-box")).to_have_count(0)
    (shown,) = [output for output in front.press_run().values() if "el_layout" in output]
    assert shown["el_layout"][0]["boxes"][0]["box"]["right"] == 0.5
    expect(box_of(panel, "dog")).to_have_attribute("aria-disabled", "true")
    expect(panel.get_by_role("status")).to_contain_text("Boxes of the last run")
    stage = still_box(panel.locator(".el-stage"))
    assert abs(stage["width"] / stage["height"] - 384 / 512) < 0.03  # borders of a pixel
    text = front.value(NODE, "text")
    box_of(panel, "dog").press("ArrowRight")
    box_of(panel, "dog").press("Delete")
    drag(front, panel, (0.3, 0.5), (0.6, 0.6))
    assert front.value(NODE, "text") == text
    assert sides(panel, "dog") == [0, 0, 50, 100]
    front.shot(f"layout-linked-{'nodes2' if front.vue else 'classic'}")
    front.wait_until_kept("el_layout")
    front.open()
    panel = front.panel(NODE)
    expect(box_of(panel, "dog")).to_have_attribute("aria-label", "dog: left 0 %, top 0 %, width 50 %, height 100 %")


def test_a_workflow_file_that_holds_something_else_does_no_harm(either_front: Front):
    front = either_front
    front.clear()
    front.add("PrimitiveStringMultiline", "Answer", (0, 60))
    front.add("ELLayoutFromText", NODE, (450, 60))
    front.link("Answer", 0, NODE, "text")
    for held in ("null", "5", "{ boxes: [1, null, {}] }", "{ width: 8, height: 0, boxes: [] }", "{ boxes: {} }"):
        front.run(f"app.graph.nodes[1].properties.el_layout = {held}")
        front.run("app.graph.configure(app.graph.serialize())")
        panel = front.panel(NODE)
        expect(panel.get_by_role("status")).to_have_text("The text comes from another node: run to see its boxes.")
        expect(panel.locator(".el-box")).to_have_count(0)


@THOROUGH  # a page that is loaded again
def test_what_is_moved_is_what_is_run_and_stays_after_a_reload(open_front, vue):
    front = open_front(vue=vue)
    panel = opened(front)
    box_of(panel, "dog").press("Shift+ArrowRight")
    text = "dog: 5%, 0%, 50%, 100%; ball: 0.6, 0.7, 0.2, 0.2"
    (sent,) = [node["inputs"] for node in front.prompt().values()]
    assert sent["text"] == text
    (shown,) = [output for output in front.press_run().values() if "el_layout" in output]
    assert [each["box"]["left"] for each in shown["el_layout"][0]["boxes"]] == [0.05, 0.6]
    assert len(shown["images"]) == 1
    front.wait_until_kept(text)
    front.open()
    panel = front.panel(NODE)
    expect(box_of(panel, "dog")).to_have_attribute("aria-label", "dog: left 5 %, top 0 %, width 50 %, height 100 %")
    assert front.value(NODE, "text") == text


def test_in_chinese(open_front):
    front = open_front(settings={"Comfy.Locale": "zh"})
    panel = opened(front, "狗: 左半")
    expect(box_of(panel, "狗")).to_have_attribute("aria-label", "狗：左 0 %，上 0 %，宽 50 %，高 100 %")
    panel.get_by_role("button", name="添加框").click()
    assert front.value(NODE, "text") == "狗: 左半\n东西: 35%, 35%, 30%, 30%"
