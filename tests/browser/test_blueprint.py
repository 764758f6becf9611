"""The subgraph blueprint: found in the search as one node, wired up, run."""

from __future__ import annotations

import json

from tests.tools.browser.blueprint import FILE, NAME, SOURCE, make
from tests.tools.browser.front import Front
from tests.tools.browser.templates import fill
from tests.tools.comfyui.client import ComfyClient


def test_it_is_one_node_that_runs(front: Front, client: ComfyClient):
    assert FILE.is_file()
    front.clear()
    front.add_from_search(NAME)
    assert front.run("app.graph.nodes.map((node) => node.title)") == [NAME]
    front.add("CheckpointLoaderSimple", "Checkpoint")
    front.add("LoadImage", "Picture")
    front.add("PreviewImage", "Result")
    for output, name in enumerate(("model", "clip", "vae")):
        front.link("Checkpoint", output, NAME, name)
    front.link("Picture", 0, NAME, "pixels")
    outputs = front.run("name => app.graph.nodes.find((node) => node.title === name).outputs.map((o) => o.name)", NAME)
    front.link(NAME, outputs.index("IMAGE"), "Result", "images")
    fill(front, client)
    made = front.press_run()
    assert [len(output["images"]) for output in made.values() if "images" in output] == [1]
    front.shot("blueprint")


def test_it_is_what_the_workflow_would_give_now(front: Front):
    """Making it again gives the same nodes with the same values; ids and places are new each time."""

    def core(made: dict) -> list:
        (subgraph,) = made["definitions"]["subgraphs"]
        return sorted((node["title"], node["type"], str(node.get("widgets_values"))) for node in subgraph["nodes"])

    assert core(json.loads(FILE.read_text(encoding="utf-8"))) == core(make(front)), f"run `make blueprint` ({SOURCE})"
