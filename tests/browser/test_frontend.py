"""What a user finds without reading anything: the nodes in the search, their help, the templates."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.tools.browser.front import VISITED, Front
from tests.tools.browser.templates import NAMES, fill, shipped, shipped_prompt
from tests.tools.comfyui.base import PACK_NAME
from tests.tools.comfyui.client import ComfyClient


def our_nodes(client: ComfyClient) -> dict[str, str]:
    """Node id -> display name."""
    return {name: info["display_name"] for name, info in client.object_info().items() if name.startswith("EL")}


def test_each_node_can_be_added_from_the_search(front: Front, client: ComfyClient):
    nodes = our_nodes(client)
    assert nodes
    for node_id, name in nodes.items():
        front.clear()
        front.add_from_search(name, PACK_NAME)
        assert front.run("app.graph.nodes.map((node) => node.type)") == [node_id]
    front.shot("search")


def open_template(front: Front, name: str) -> None:
    """Click through the template browser."""
    dialog = front.page.get_by_role("dialog")
    front.page.get_by_text("Templates", exact=True).first.click()
    pack = dialog.get_by_text(PACK_NAME, exact=True).first
    pack.or_(dialog.get_by_text("Extensions", exact=True)).first.wait_for()
    if not pack.is_visible():
        dialog.get_by_text("Extensions", exact=True).click()
    pack.click()
    # cards and their pictures are loaded when they come into view
    dialog.get_by_test_id(re.compile("^template-workflow-")).last.scroll_into_view_if_needed()
    card = dialog.get_by_test_id(f"template-workflow-{name}")
    card.scroll_into_view_if_needed()
    front.wait(
        "name => [...document.querySelectorAll('[role=dialog] img')].some(i => i.alt === name && i.naturalWidth > 0)",
        name,
    )
    if name == NAMES[0]:
        front.shot("templates")
    card.click()
    dialog.wait_for(state="hidden")
    front.wait("count => app.graph.nodes.length === count", len(shipped(name)["nodes"]))


def test_what_the_host_opens_at_a_first_start_is_closed(open_front: Callable[..., Front]):
    front = open_front(settings={VISITED: False})
    assert front.page.get_by_role("dialog").count() == 0
    open_template(front, NAMES[0])


@pytest.mark.parametrize("name", NAMES)
def test_a_template_opens_whole_and_runs_from_the_run_button(front: Front, client: ComfyClient, name: str):
    open_template(front, name)
    missing = "app.graph.nodes.map(node => node.type).filter(type => !LiteGraph.registered_node_types[type])"
    assert front.run(missing) == []
    assert plain(front.prompt()) == plain(shipped_prompt(name))
    fill(front, client)
    outputs = front.press_run()
    images = [item for output in outputs.values() for item in output.get("images", [])]
    assert images
    front.run("app.canvas.fitViewToSelectionAnimated?.() ?? null")
    front.shot(f"ran-{name}")


def test_without_our_javascript_workflows_are_the_same_and_run(open_front: Callable[..., Front], client: ComfyClient):
    front = open_front(javascript=False)
    assert front.run("app.extensions.filter(e => e.name.startsWith('explainable_latents'))") == []
    for name in NAMES:
        front.load(shipped(name))
        assert plain(front.prompt()) == plain(shipped_prompt(name)), name
    fill(front, client)
    assert front.press_run()
    front.errors.clear()  # that our files did not load


def plain(prompt: dict) -> dict:
    """Class and inputs of every node."""
    return {node_id: (node["class_type"], node["inputs"]) for node_id, node in prompt.items()}
