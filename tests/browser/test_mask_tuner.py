"""The inspector's sliders for masks: the outline is the nodes' own mask, and Apply writes what was tuned to them."""

from __future__ import annotations

import base64
import io
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image
from playwright.sync_api import Locator, Response, expect

from tests.browser.test_inspector import HEAT, opened
from tests.browser.test_panels_in_place import command
from tests.tools.browser.front import Front

OUTLINE = "**/explainable_latents/outline"
SIDE = 16  # of the maps; a place is 32 pixels of the canvas
VALUE_IS = """value => {
    const mask = app.graph.nodes.find((node) => node.title === "Mask");
    return mask?.widgets.find((widget) => widget.name === "value").value === value;
}"""


def enclosed(answer: dict[str, Any]) -> np.ndarray:
    """The places that have an odd number of the outline's upright lines on their left."""
    width, height = answer["size"]
    crossed = np.zeros((height, width), int)
    for x, top, x_end, bottom in np.asarray(answer["lines"], int).reshape(-1, 4):
        if x == x_end:
            crossed[top:bottom, x:] += 1
    return crossed % 2 == 1


def pixels(panel: Locator) -> np.ndarray:
    """The canvas: [512,512,3]."""
    data = panel.locator("canvas").evaluate("canvas => canvas.toDataURL().split(',')[1]")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")).astype(int)


def graph(front: Front, *, pictures: int = 1, filters: bool = True) -> None:
    """Maps, their inspector, and a mask of them through Gaussian Smooth and Dilate, which is shown."""
    front.clear()
    front.add("TestSaliency", "Maps", (20, 60))
    front.set("Maps", steps=1, words=3, side=SIDE, pictures=pictures)
    front.add("ELSaliencyOverlay", HEAT, (300, 60))
    front.link("Maps", 0, HEAT, "saliency")
    if filters:
        front.add("ELSmoothSaliency", "Smooth", (20, 400))
        front.set("Smooth", sigma=1.5, size=5)
        front.link("Maps", 0, "Smooth", "maps")
        front.add("ELDilateSaliency", "Dilate", (20, 560))
        front.set("Dilate", iterations=1)
        front.link("Smooth", 0, "Dilate", "maps")
    front.add("ELSaliencyToMask", "Mask", (900, 60))
    front.set("Mask", rule="of maximum", value=0.5, words="dog, house")
    front.link("Dilate" if filters else "Maps", 0, "Mask", "saliency")
    front.add("MaskToImage", "Picture", (900, 500))
    front.link("Mask", 0, "Picture", "mask")
    front.add("PreviewImage", "Shown", (1150, 500))
    front.link("Picture", 0, "Shown", "images")
    front.look_at("Maps", 0.8)


def run(front: Front) -> list[np.ndarray]:
    """Run, and return the masks that the nodes made, on the maps' grid."""
    (shown,) = front.run("app.graph.nodes.filter(node => node.title === 'Shown').map(node => String(node.id))")
    masks = []
    for image in front.press_run()[shown]["images"]:
        answer = requests.get(f"{front.server.url}/view", params=image, timeout=60, proxies={"no_proxy": "*"})
        masks.append(np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))[::8, ::8] > 127)
    return masks


def tuner(panel: Locator) -> Locator:
    return panel.get_by_role("group", name="Tune the mask")


def open_tuner(front: Front, panel: Locator) -> dict[str, Any]:
    """Open the sliders; the server's first answer."""
    with front.page.expect_response(OUTLINE) as answer:
        panel.get_by_role("button", name="Tune the mask").click()
    expect(tuner(panel)).to_be_visible()
    front.settle()  # it is drawn
    return checked(answer.value)


def tune(front: Front, panel: Locator, name: str, value: float | str) -> dict[str, Any]:
    """Set a slider or choice; the server's answer to that."""
    with front.page.expect_response(OUTLINE) as answer:
        control = tuner(panel).get_by_label(name, exact=True)
        control.select_option(value) if isinstance(value, str) else control.fill(str(value))
    front.settle()
    return checked(answer.value)


def checked(response: Response) -> dict[str, Any]:
    assert response.status == 200, response.text()
    return response.json()


def said(panel: Locator) -> Locator:
    return tuner(panel).get_by_role("status")


def steady(front: Front) -> None:
    """The front end has seen all changes so far, as it does when the mouse is let go."""
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")


def test_the_outline_is_the_mask_of_the_node_and_apply_writes_what_was_tuned(either_front: Front):
    front = either_front
    graph(front)
    (mask,) = run(front)
    panel = opened(front)
    before = pixels(panel)
    answer = open_tuner(front, panel)
    assert np.array_equal(enclosed(answer), mask)
    expect(said(panel)).to_contain_text(f"{100 * mask.mean():.1f} % inside")
    assert drawn_where(before, pixels(panel), mask)
    expect(panel.get_by_role("button", name="Reset")).to_be_disabled()
    for name, value in (("threshold", 0.7), ("smooth", 3.0), ("window", 9), ("grow", 3)):
        answer = tune(front, panel, name, value)
    tuned = enclosed(answer)
    assert not np.array_equal(tuned, mask)
    assert drawn_where(before, pixels(panel), tuned)
    assert front.value("Mask", "value") == 0.5, "nothing is written before Apply"
    steady(front)
    front.shot(f"mask-tuner-{'nodes2' if front.vue else 'classic'}")
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text("Written to Mask #")
    assert [front.value("Mask", "value"), front.value("Smooth", "sigma")] == [0.7, 3]
    assert [front.value("Smooth", "size"), front.value("Dilate", "iterations")] == [9, 3]
    expect(tuner(panel).get_by_role("button", name="Apply")).to_be_disabled()
    front.press("Control+z")
    front.wait(VALUE_IS, 0.5)
    assert [front.value("Smooth", "sigma"), front.value("Dilate", "iterations")] == [1.5, 1]
    panel = opened(front)  # the graph is there again, and what was tuned is tuned again
    expect(tuner(panel).get_by_role("button", name="Apply")).to_be_enabled()
    expect(said(panel)).to_contain_text("% inside")
    front.press("Control+y")
    front.wait(VALUE_IS, 0.7)
    assert [front.value("Smooth", "sigma"), front.value("Dilate", "iterations")] == [3, 3]
    (made,) = run(front)
    assert np.array_equal(made, tuned)


def drawn_where(before: np.ndarray, after: np.ndarray, mask: np.ndarray) -> bool:
    """Whether a line was drawn at each border of the mask, and nowhere else: within 10 pixels, a third of a place."""
    size = len(before) // len(mask)
    big = np.pad(mask.repeat(size, 0).repeat(size, 1), 1)
    border = np.zeros_like(big)
    border[:, 1:] |= big[:, 1:] != big[:, :-1]
    border[1:] |= big[1:] != big[:-1]
    near = np.zeros_like(border)
    for y, x in np.argwhere(border):
        near[max(0, y - 10) : y + 10, max(0, x - 10) : x + 10] = True
    changed = (before != after).any(-1)
    inner = border[1:-1, 1:-1]
    white = (after[inner] > 200).all(-1)
    return bool(changed.any() and not changed[~near[1:-1, 1:-1]].any() and white.mean() > 0.9)


def test_rules_have_ranges_of_their_own_and_mistakes_are_told(front: Front):
    graph(front)
    run(front)
    panel = opened(front)
    open_tuner(front, panel)
    tune(front, panel, "rule", "otsu")
    expect(tuner(panel).get_by_label("threshold")).to_be_disabled()
    tune(front, panel, "rule", "mean + k·std")
    tune(front, panel, "threshold", -1.5)
    answer = tune(front, panel, "rule", "quantile")
    assert enclosed(answer).mean() > 0.9
    expect(tuner(panel).get_by_label("threshold")).to_have_value("0")
    front.set("Mask", words="zebra")
    steady(front)
    expect(said(panel)).to_contain_text("no map of 'zebra'; there are maps of: dog, cat, house")
    front.set("Mask", words="cat")
    steady(front)
    expect(said(panel)).to_contain_text("% inside")
    panel.get_by_role("button", name="Reset").click()
    expect(tuner(panel).get_by_label("rule")).to_have_value("of maximum")
    refine = tuner(panel).get_by_label("refine")
    expect(refine).to_be_disabled()
    expect(tuner(panel)).to_contain_text("self-attention, which is there only while the model runs")


def test_each_word_and_each_picture_has_its_own_mask(front: Front):
    graph(front, pictures=2)
    front.set("Mask", combine="each", words="")
    masks = run(front)
    panel = opened(front)
    assert np.array_equal(enclosed(open_tuner(front, panel)), masks[0])
    with front.page.expect_response(OUTLINE) as answer:
        panel.get_by_label("picture", exact=True).fill("1")
    assert np.array_equal(enclosed(answer.value.json()), masks[1])
    with front.page.expect_response(OUTLINE) as answer:
        panel.get_by_role("button", name="house").click()
    assert np.array_equal(enclosed(answer.value.json()), masks[5])
    assert not np.array_equal(masks[0], masks[1])


def test_a_linked_setting_and_a_missing_filter_are_not_written_and_the_note_says_so(front: Front):
    graph(front, filters=False)
    front.add("PrimitiveFloat", "Number", (600, 600))
    front.set("Number", value=0.5)
    run(front)
    panel = opened(front)
    open_tuner(front, panel)
    tune(front, panel, "smooth", 2.0)
    tune(front, panel, "threshold", 0.8)
    tune(front, panel, "rule", "min-max")
    front.link("Number", 0, "Mask", "value")
    steady(front)
    expect(said(panel)).to_contain_text("gets value from another node")
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text("rule.")
    expect(said(panel)).to_contain_text("Not written: smooth, as Mask #")
    expect(said(panel)).to_contain_text("has no Gaussian Smooth before it")
    expect(said(panel)).to_contain_text("Not written: threshold, as Mask #")
    assert [front.value("Mask", "rule"), front.value("Mask", "value")] == ["min-max", 0.5]
    expect(tuner(panel).get_by_label("smooth")).to_have_value("2")


def test_without_a_mask_node_the_word_is_outlined_and_nothing_is_written(front: Front):
    graph(front)
    run(front)
    panel = opened(front)
    front.run("app.graph.remove(app.graph.nodes.find(node => node.title === 'Mask'))")
    steady(front)
    alone = open_tuner(front, panel)
    expect(said(panel)).to_contain_text("No mask node reads these maps")
    tune(front, panel, "rule", "otsu")
    expect(tuner(panel).get_by_role("button", name="Apply")).to_be_disabled()
    assert alone["size"] == [SIDE, SIDE]


def test_mask_nodes_are_found_through_reroutes_and_in_subgraphs(front: Front):
    graph(front)
    front.run(
        """() => {
            const find = (title) => app.graph.nodes.find((node) => node.title === title);
            const reroute = LiteGraph.createNode("Reroute");
            app.graph.add(reroute);
            find("Maps").connect(0, reroute, 0);
            reroute.connect(0, find("Smooth"), 0);
            app.canvas.deselectAll();
            app.canvas.selectItems([find("Dilate"), find("Mask"), find("Picture")]);
        }"""
    )
    command(front, "Comfy.Graph.ConvertToSubgraph")
    front.wait("app.graph.nodes.some((node) => node.subgraph)")
    (mask,) = run(front)
    panel = opened(front)
    assert np.array_equal(enclosed(open_tuner(front, panel)), mask)
    tuned = enclosed(tune(front, panel, "grow", 4))
    tuner(panel).get_by_role("button", name="Apply").click()
    expect(said(panel)).to_contain_text("Written to Mask #")
    (made,) = run(front)
    assert np.array_equal(made, tuned)


def show_maps_of(front: Front, file: str) -> None:
    """Let the overlay show the maps that another run has left in a file."""
    front.run(
        """([title, file]) => {
            const node = app.graph.nodes.find((each) => each.title === title);
            node.properties.el_inspector = { file, type: "temp" };
            node.onConfigure(node.serialize());
        }""",
        [HEAT, file],
    )


def test_the_masking_node_of_a_sampler_whose_maps_are_shown(front: Front):
    """The maps are of another run with the same labels: what is asked is seen, nothing is sampled."""
    graph(front)
    run(front)
    file = front.run(f"app.graph.nodes.find(node => node.title === '{HEAT}').properties.el_inspector.file")
    front.clear()
    front.add("ELMaskFromAttention", "How", (20, 60))
    front.set("How", rule="mean + k·std", value=0.3, combine="sum", smooth_sigma=1.0, dilate_iterations=1)
    front.add("ELMaskedLatentKSampler", "Sampler", (400, 60))
    front.link("How", 0, "Sampler", "masking")
    front.add("ELSaliencyOverlay", HEAT, (800, 60))
    slot = front.run(
        "app.graph.nodes.find(n => n.title === 'Sampler').outputs.findIndex(o => o.type === 'EL_SALIENCY')"
    )
    front.link("Sampler", slot, HEAT, "saliency")
    front.look_at(HEAT)
    show_maps_of(front, file)
    panel = opened(front)
    with front.page.expect_request(OUTLINE) as asked:
        panel.get_by_role("button", name="Tune the mask").click()
    given = json.loads(asked.value.post_data)
    front.settle()
    assert given["filters"] == []
    assert given["frame"] == ""
    shaping = {"rule": "mean + k·std", "value": 0.3, "combine": "sum", "smooth_sigma": 1.0, "dilate_iterations": 1}
    assert shaping.items() <= given["shaping"].items()
    tune(front, panel, "smooth", 2.5)
    tuner(panel).get_by_role("button", name="Apply").click()
    assert front.value("How", "smooth_sigma") == 2.5


def test_by_keyboard_and_after_a_reload(open_front: Callable[..., Front], vue: bool):
    front = open_front(vue=vue)
    graph(front)
    run(front)
    panel = opened(front)
    panel.get_by_role("button", name="Tune the mask").focus()
    with front.page.expect_response(OUTLINE):
        front.page.keyboard.press("Enter")
    tuner(panel).get_by_label("threshold").focus()
    assert front.run("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(3):
        front.page.keyboard.press("ArrowRight")
    expect(tuner(panel).get_by_label("threshold")).to_have_attribute("aria-valuetext", "threshold 0.53")
    front.wait_until_kept("0.53")
    front.open()
    front.wait("app.graph.nodes.length === 7")
    panel = opened(front)
    expect(tuner(panel).get_by_label("threshold")).to_have_value("0.53")
    expect(said(panel)).to_contain_text("% inside")
    tuner(panel).get_by_role("button", name="Apply").focus()
    front.page.keyboard.press("Enter")
    expect(said(panel)).to_contain_text("Written to Mask #")
    assert front.value("Mask", "value") == 0.53


def test_maps_that_the_server_no_longer_has_are_told_with_the_way_to_get_them(front: Front):
    graph(front)
    run(front)
    panel = opened(front)
    open_tuner(front, panel)
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    (kept,) = (node["properties"]["el_inspector"] for node in saved["nodes"] if "el_inspector" in node["properties"])
    folder = front.server.base / "temp"
    shutil.copy(folder / kept["file"], folder / "copy.maps")  # to be shown, but of no run that the server knows
    kept["file"] = "copy.maps"
    front.load(saved)
    panel = opened(front)
    before = pixels(panel)
    expect(said(panel)).to_contain_text("The server no longer has these maps: change a setting of this node")
    assert np.array_equal(pixels(panel), before)
    front.set(HEAT, opacity=0.35)
    run(front)
    expect(said(panel)).to_contain_text("% inside")


@pytest.mark.parametrize(
    "kept",
    [
        {"isOpen": "yes", "tuned": 5, "mask": 7},
        {"isOpen": True, "tuned": {"value": "<b>", "nobody": 1, "rule": "<i>"}, "mask": "<b>"},
        {"isOpen": True, "tuned": {"value": 1e300, "smooth_size": 4}, "mask": "word"},
    ],
)
def test_a_workflow_that_holds_anything_breaks_nothing(front: Front, kept: dict):
    graph(front)
    run(front)
    opened(front)  # the page has heard of the run
    saved = front.run("JSON.parse(JSON.stringify(app.graph.serialize()))")
    for node in saved["nodes"]:
        if "el_inspector" in node["properties"]:
            node["properties"]["el_inspector"]["tuner"] = kept
    front.load(saved)
    panel = opened(front)
    if kept["isOpen"] is True:
        expect(said(panel)).not_to_be_empty()
        tuner(panel).get_by_role("button", name="Reset").click()
        expect(said(panel)).to_contain_text("% inside")
    assert panel.locator("b, i").count() == 0


def test_a_mask_node_whose_box_holds_no_number_breaks_nothing(front: Front):
    graph(front)
    run(front)
    panel = opened(front)
    open_tuner(front, panel)
    front.set("Mask", value="<b>")
    steady(front)
    expect(said(panel)).to_contain_text("The server does not say what the mask is.")
    expect(tuner(panel).get_by_label("threshold")).to_have_attribute("aria-valuetext", "threshold 0")
    front.set("Mask", value=0.25)
    steady(front)
    expect(said(panel)).to_contain_text("% inside")


@contextmanager
def answered_after_the_run(front: Front) -> Iterator[None]:
    """The page gets no answer to what it queues before that has run."""
    front.run(
        """() => {
            const fetchApi = window.fetchApi = app.api.fetchApi;
            app.api.fetchApi = async function (route, ...rest) {
                if (route !== "/prompt") return fetchApi.call(this, route, ...rest);
                const ended = { once: true };
                const done = new Promise((resolve) => app.api.addEventListener("execution_success", resolve, ended));
                const answer = await fetchApi.call(this, route, ...rest);
                await done;
                return answer;
            };
        }"""
    )
    try:
        yield
    finally:
        front.run("() => { app.api.fetchApi = window.fetchApi; }")


@pytest.mark.parametrize("answered", [nullcontext, answered_after_the_run])
def test_maps_of_a_workflow_behind_stay_out_of_the_one_in_front(front: Front, answered: Callable):
    """Also where the page hears that a run began before it hears which one it has queued."""
    graph(front)
    run(front)
    opened(front)
    stored = f"app.graph.nodes.find(node => node.title === '{HEAT}').properties.el_inspector.file"
    before = front.run(stored)
    front.set(HEAT, opacity=0.35)
    with answered(front):
        front.run(
            """async () => {
                const { workflow, output } = await app.graphToPrompt();
                const ended = { once: true };
                const done = new Promise((resolve) => app.api.addEventListener("execution_success", resolve, ended));
                const other = { ...workflow, id: "another with the same numbers" };
                await app.api.queuePrompt(0, { output, workflow: other });
                await done;
            }"""
        )
        front.settle()
        assert front.run(stored) == before
        run(front)  # nothing is computed: the server has the maps of the other workflow's run
        front.wait(f"file => {stored} !== file", before)


def test_an_inspector_in_a_closed_workflow_follows_no_graph_any_more(front: Front):
    graph(front)
    run(front)
    panel = opened(front)
    open_tuner(front, panel)
    front.run(
        f"""() => {{
            app.canvas.deselectAll();
            app.canvas.selectItems(app.graph.nodes.filter((node) => ["Mask", "{HEAT}"].includes(node.title)));
        }}"""
    )
    with front.page.expect_response(OUTLINE):
        command(front, "Comfy.Graph.ConvertToSubgraph")
    count = f"""() => {{
        const inner = app.graph.nodes.find((node) => node.subgraph).subgraph;
        const node = inner.nodes.find((each) => each.title === "{HEAT}");
        const {{ inputs }} = node;
        window.reads = 0;
        Object.defineProperty(node, "inputs", {{ get: () => (window.reads++, inputs) }});
    }}"""
    told = "() => { window.reads = 0; app.api.dispatchCustomEvent('graphChanged'); return window.reads; }"
    front.run(count)
    assert front.run(told) > 0
    front.clear()
    assert front.run(told) == 0
