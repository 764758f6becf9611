"""The languages in the browser: names on the nodes, and help pages with their pictures."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.tools.browser.front import Front
from tests.tools.comfyui.client import ComfyClient
from tests.tools.comfyui.paths import ROOT

CHINESE = json.loads((ROOT / "locales" / "zh" / "nodeDefs.json").read_text(encoding="utf-8"))
LOCALE = "Comfy.Locale"
PICTURE = "id => [...document.images].some(i => i.src.endsWith(`/docs/images/${id}.jpg`) && i.naturalWidth > 0)"


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
        front.page.get_by_test_id("info-button").click()
        front.page.get_by_role("heading", level=1, name=name, exact=True).wait_for()
        front.wait(PICTURE, node_id)
    front.shot(f"help-{language}")
    if language == "en":
        # the front end looks for <id>/en.md before it takes <id>.md
        front.errors = [error for error in front.errors if "404 (Not Found)" not in error]
