"""The languages in the browser: names on the nodes, and help pages with their pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from playwright.sync_api import expect

from tests.browser.test_chips import parsed
from tests.tools.browser.front import Front
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.paths import ROOT
from tests.tools.thorough import THOROUGH

CHINESE = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
LOCALE = "Comfy.Locale"
PICTURE = "id => [...document.images].some(i => i.src.endsWith(`/docs/images/${id}.webp`) && i.naturalWidth > 0)"


def test_nodes_wear_their_chinese_names(open_front: Callable[..., Front]):
    front = open_front(settings={LOCALE: "zh"})
    for node_id, texts in CHINESE.items():
        node = front.run(
            """type => {
                const node = LiteGraph.createNode(type);
                return {
                    title: node.title,
                    inputs: Object.fromEntries(node.inputs.map((slot) => [slot.name, slot.localized_name])),
                    outputs: node.outputs.map((slot) => slot.localized_name),
                };
            }""",
            node_id,
        )
        assert node["title"] == texts["display_name"]
        names = {name: entry["name"] for name, entry in texts["inputs"].items() if name != "control_after_generate"}
        assert node["inputs"] == names, node_id
        assert node["outputs"] == [entry["name"] for entry in texts["outputs"].values()], node_id


@THOROUGH  # most of a minute for each language
@pytest.mark.parametrize("language", ["en", "zh"])
def test_help_pages_are_in_the_language_and_their_pictures_load(
    open_front: Callable[..., Front], client: ComfyClient, language: str
):
    names = {name: info["display_name"] for name, info in client.object_info().items() if name.startswith("EL")}
    if language == "zh":
        names = {name: CHINESE[name]["display_name"] for name in names}
    front = open_front(settings={LOCALE: language})
    for node_id, name in names.items():
        front.clear()
        front.add(node_id, name)
        front.run("() => { app.canvas.selectNode(app.graph.nodes[0]); app.canvas.setDirty(true, true); }")
        front.settle()  # the button is that of this node
        front.page.get_by_test_id("info-button").click()
        front.page.get_by_role("heading", level=1, name=name, exact=True).wait_for()
        front.wait(PICTURE, node_id)
    front.shot(f"help-{language}")
    if language == "en":
        # the front end looks for <id>/en.md before it takes <id>.md
        front.errors = [error for error in front.errors if "404 (Not Found)" not in error]


def test_panels_speak_chinese(open_front: Callable[..., Front]):
    panel = parsed(open_front(settings={LOCALE: "zh"}), "a girl with a kite on a hill")
    expect(panel.get_by_role("status")).to_have_text("● 主体  ▲ 场景  ○ 略去；点击词可改变角色")
    expect(panel.get_by_role("button", name="girl: 主体")).to_be_visible()


def test_every_text_of_the_panels_has_a_translation():
    table = (ROOT / "js" / "texts.js").read_text(encoding="utf-8")
    keys = set(re.findall(r'^  (?:"([^"]+)"|(\w+)):', table, re.MULTILINE))
    known = {text for pair in keys for text in pair if text}
    used = set()
    for file in (ROOT / "js").glob("*.js"):
        used |= set(re.findall(r'translated\(\s*"([^"]+)"', file.read_text(encoding="utf-8")))
    assert len(used) >= 15
    assert used - known == set()
