"""Before and after under Compare Images: the divider by mouse and keyboard, the pairs, and what is drawn."""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image
from playwright.sync_api import Locator, expect

from tests.tools.browser.front import Front
from tests.tools.comfyui.client import ComfyClient
from tests.tools.thorough import THOROUGH

NODE = "Compare"
COLOURS = {"reference": (200, 30, 30), "result": (30, 200, 30), "plain": (30, 30, 200)}


def graph(front: Front, client: ComfyClient, *names: str) -> Locator:
    """A picture of one colour each, compared; the panel after a run."""
    front.clear()
    front.add("ELCompareImages", NODE, (420, 60))
    inputs = {"reference": "reference", "result": "image", "plain": "plain"}
    for i, name in enumerate(names):
        buffer = io.BytesIO()
        Image.new("RGB", (120, 80), COLOURS[name]).save(buffer, format="PNG")
        image = client.upload_image(buffer.getvalue(), f"compare-{name}.png")
        front.add("LoadImage", name, (40, 60 + 320 * i))
        front.run("async () => { await app.refreshComboInNodes(); }")
        front.set(name, image=image)
        front.link(name, 0, NODE, inputs[name])
    front.press_run()
    panel = front.panel(NODE, "compare")
    expect(panel.locator("canvas")).to_be_visible()  # the pictures are there
    return panel


def colour(panel: Locator, x: float, y: float = 0.5) -> str:
    """Which picture is seen at a place of the pictures, given as shares of their width and height."""
    canvas = panel.locator("canvas")
    script = """(canvas, [x, y]) => {
        const [w, h] = [canvas.width, canvas.height];
        const scale = Math.min(w / 120, h / 80);
        const at = [(w - 120 * scale) / 2 + x * 120 * scale, (h - 80 * scale) / 2 + y * 80 * scale];
        return [...canvas.getContext("2d").getImageData(...at.map(Math.floor), 1, 1).data];
    }"""
    pixel = canvas.evaluate(script, [x, y])
    (found,) = [name for name, expected in COLOURS.items() if tuple(pixel[:3]) == expected]
    return found


def drag(front: Front, panel: Locator, share: float) -> None:
    """Drag from the middle of the pictures to a place, given as a share of their width."""
    box = panel.locator("canvas").bounding_box()
    scale = min(box["width"] / 120, box["height"] / 80)
    x = box["x"] + (box["width"] - 120 * scale) / 2
    y = box["y"] + box["height"] / 2
    front.page.mouse.move(x + 60 * scale, y)
    front.page.mouse.down()
    front.page.mouse.move(x + share * 120 * scale, y, steps=3)
    front.page.mouse.up()


def test_the_divider_is_dragged_and_moved_by_keyboard(either_front: Front, client: ComfyClient):
    front = either_front
    panel = graph(front, client, "reference", "result")
    divider = panel.get_by_label("Divider")
    expect(divider).to_have_value("50")
    assert (colour(panel, 0.25), colour(panel, 0.75)) == ("reference", "result")
    expect(panel.get_by_role("status")).to_contain_text("whole picture · result: PSNR 5.28 dB")
    assert panel.get_by_role("group").is_hidden()  # there is only one pair
    drag(front, panel, 0.9)
    expect(divider).to_have_value("90")
    assert colour(panel, 0.75) == "reference"
    divider.press("Home")
    assert colour(panel, 0.25) == "result"
    divider.press("ArrowRight")
    assert front.run("app.graph.nodes.find((node) => node.title === 'Compare').properties.el_compare.at") == 1
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    front.load(saved)
    panel = front.panel(NODE, "compare")
    expect(panel.get_by_label("Divider")).to_have_value("1")
    assert colour(panel, 0.25) == "result"


def test_a_third_picture_can_be_on_either_side(either_front: Front, client: ComfyClient):
    front = either_front
    panel = graph(front, client, "reference", "result", "plain")
    for button, pair in (
        ("reference | plain", ("reference", "plain")),
        ("plain | result", ("plain", "result")),
        ("reference | result", ("reference", "result")),
    ):
        panel.get_by_role("button", name=button).press("Enter")
        expect(panel.get_by_role("button", name=button)).to_have_attribute("aria-pressed", "true")
        assert (colour(panel, 0.25), colour(panel, 0.75)) == pair
    expect(panel.get_by_role("status")).to_contain_text("· plain: PSNR ")
    front.look_at(NODE)
    front.shot(f"compare-{'nodes2' if front.vue else 'classic'}")


@THOROUGH  # a page of its own, several runs
def test_the_pictures_have_a_name_and_those_of_the_run_before_are_given_back(
    open_front: Callable[..., Front], client: ComfyClient
):
    front = open_front()
    front.run(
        """() => {
            window.open = new Set();
            const make = window.createImageBitmap;
            window.createImageBitmap = async (...given) => {
                const made = await make(...given);
                const close = made.close.bind(made);
                made.close = () => (window.open.delete(made), close());
                window.open.add(made);
                return made;
            };
        }"""
    )
    panel = graph(front, client, "reference", "result", "plain")
    expect(panel.get_by_role("img", name="reference | result")).to_be_visible()
    panel.get_by_role("button", name="plain | result").press("Enter")
    expect(panel.get_by_role("img", name="plain | result")).to_be_visible()
    assert front.run("window.open.size") == 3
    front.run("() => { window.before = new Set(window.open); }")
    front.set("result", image=front.value("plain", "image"))
    front.press_run()
    front.wait("window.open.size === 3 && window.open.isDisjointFrom(window.before)")
    expect(panel.get_by_role("status")).to_contain_text("plain: PSNR")
    assert (colour(panel, 0.25), colour(panel, 0.75)) == ("plain", "plain")


def test_lost_pictures_are_told(front: Front, client: ComfyClient):
    graph(front, client, "reference", "result")
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    (node,) = [node for node in saved["nodes"] if node["type"] == "ELCompareImages"]
    node["properties"]["el_compare"]["files"]["result"] = [{"file": "gone.png", "type": "temp"}]
    front.load(saved)
    expect(front.panel(NODE, "compare").get_by_role("status")).to_contain_text("are gone: run again")


def test_a_workflow_that_holds_anything_breaks_nothing(front: Front, client: ComfyClient):
    graph(front, client, "reference", "result")
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    (node,) = [node for node in saved["nodes"] if node["type"] == "ELCompareImages"]
    whole = node["properties"]["el_compare"]
    lacking = ({"figures": None}, {"figures": {"result": "<b>1</b>"}}, {"files": "x"}, {"files": {"result": []}})
    for change in lacking:
        node["properties"]["el_compare"] = {**whole, **change}
        front.load(saved)
        expect(front.panel(NODE, "compare").get_by_role("status")).to_contain_text("are gone: run again")
    node["properties"]["el_compare"] = {**whole, "at": "x", "item": -3, "pair": 5}
    front.load(saved)
    expect(front.panel(NODE, "compare").get_by_label("Divider")).to_have_value("0")
    assert colour(front.panel(NODE, "compare"), 0.25) == "result"
