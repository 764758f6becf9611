"""The subgraph blueprint: found in the search as one node, wired up, run."""

from __future__ import annotations

import json

from playwright.sync_api import expect

from tests.tools.browser.blueprint import FILE, NAME, make
from tests.tools.browser.front import Front
from tests.tools.browser.templates import CASE, fill
from tests.tools.comfyui.client import ComfyClient


def test_with_three_more_nodes_it_changes_the_subject_and_shows_its_masks(either_front: Front, client: ComfyClient):
    front = either_front
    assert FILE.is_file()
    front.clear()
    front.add_from_search(NAME)
    assert front.run("app.graph.nodes.map((node) => node.title)") == [NAME]
    front.add("CheckpointLoaderSimple", "Checkpoint", (40, 60))
    front.add("LoadImage", "Picture", (40, 300))
    front.add("PreviewImage", "Result", (900, 60))
    for output, name in enumerate(("model", "clip", "vae")):
        front.link("Checkpoint", output, NAME, name)
    front.link("Picture", 0, NAME, "reference")
    front.link(NAME, 0, "Result", "images")
    assert front.run("app.graph.nodes.length") == 4
    fill(front, client)
    front.set(NAME, prompt=CASE.prompt)
    made = front.press_run()
    pictures = [output["images"] for output in made.values() if "images" in output]
    assert sorted(map(len, pictures)) == [1, 2]  # the result, and the masks of steps 2 and 4
    faces = "name => app.graph.nodes.find((node) => node.title === name).widgets.map((widget) => widget.name)"
    assert front.run(faces, NAME)[:4] == ["prompt", "words", "role", "negative prompt"]
    place = "name => { app.graph.nodes.find((node) => node.title === name).pos = [450, 60]; }"
    front.run(place, NAME)
    front.look_at(NAME, 0.8)
    if front.vue:
        node = front.page.locator("[data-node-id]").filter(has_text=NAME)
        expect(node.locator("img").first).to_be_visible()
    front.shot(f"blueprint-{'nodes2' if front.vue else 'classic'}")


def test_it_is_what_the_workflow_would_give_now(front: Front):
    """Making it again gives the same nodes with the same values; ids and places are new each time."""

    def core(made: dict) -> list:
        (subgraph,) = made["definitions"]["subgraphs"]
        return sorted((node["title"], node["type"], str(node.get("widgets_values"))) for node in subgraph["nodes"])

    assert core(json.loads(FILE.read_text(encoding="utf-8"))) == core(make(front)), "run `make blueprint`"
