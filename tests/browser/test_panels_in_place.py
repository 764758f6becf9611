"""Each node shows its own panel, whatever the page does with the graph: undo, redo, paste, subgraphs, other tabs."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from tests.browser.test_chips import WORDS, parsed, roles
from tests.browser.test_inspector import HEAT, brightest, chosen, inspect
from tests.tools.browser.front import Front

NODE = f"app.canvas.graph.nodes.find((node) => node.title === '{WORDS}')"
MOVE = "([title, x]) => { const node = app.graph.nodes.find((each) => each.title === title); node.pos = [x, 60]; }"
PLACE = "([title, x]) => app.graph.nodes.find((node) => node.title === title)?.pos[0] === x"


def move(front: Front, title: str, x: int) -> None:
    """Move a node as one step that can be undone."""
    front.run("app.canvas.emitBeforeChange()")
    front.run(MOVE, [title, x])
    front.run("app.canvas.emitAfterChange()")


def command(front: Front, name: str) -> None:
    front.run("async name => { await app.extensionManager.command.execute(name); }", name)


def click(front: Front, word: str) -> Locator:
    """Click a chip and return the panel: the node's own override changes, and that is what would be run."""
    panel = front.panel(WORDS)
    before = front.value(WORDS, "override")
    panel.get_by_role("button", name=word).first.click()
    override = front.value(WORDS, "override")
    assert override != before
    (sent,) = [node["inputs"] for node in front.prompt().values() if node["class_type"] == "ELParseSubjects"]
    assert sent["override"] == override
    return panel


def test_chips_after_undo_and_redo(either_front: Front):
    front = either_front
    parsed(front)
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")  # the front end has seen all that was there before
    place = front.run(f"{NODE}.pos[0]")
    move(front, WORDS, 620)
    front.press("Control+z")
    front.wait(PLACE, [WORDS, place])
    panel = click(front, "cat")
    assert roles(panel)["1 cat"] == "scene"
    move(front, WORDS, 640)
    front.press("Control+z")
    front.wait(PLACE, [WORDS, place])
    front.press("Control+y")
    front.wait(PLACE, [WORDS, 640])
    panel = click(front, "cat")
    assert "1 cat" not in roles(panel)
    front.look_at("Checkpoint")
    front.set(WORDS, text="a horse in a field", override="")
    front.press_run()
    expect(panel.get_by_role("button", name="horse: subject")).to_be_visible()
    front.shot(f"after-undo-{'nodes2' if front.vue else 'classic'}")


def test_the_inspector_after_undo_and_redo_shows_the_next_run(either_front: Front):
    front = either_front
    inspect(front, steps=1, words=4, side=16)
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")
    place = front.run(f"app.graph.nodes.find((node) => node.title === '{HEAT}').pos[0]")
    for x in (620, 640):
        move(front, HEAT, x)
        front.press("Control+z")
        front.wait(PLACE, [HEAT, place])
    front.press("Control+y")
    front.wait(PLACE, [HEAT, 640])
    panel = front.panel(HEAT)
    expect(panel.locator("canvas")).to_be_visible()
    panel.get_by_role("button", name="tree").click()
    assert chosen(panel) == "tree"
    front.set("Maps", words=2)
    front.press_run()
    expect(panel.locator(".el-words button")).to_have_count(2)
    assert abs(brightest(panel)[0] - 1 / 4) < 0.1


def test_chips_of_a_pasted_node_are_its_own(either_front: Front):
    front = either_front
    parsed(front)
    front.run(f"app.canvas.selectNode({NODE})")
    front.run("() => { app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard(); }")
    front.wait("app.graph.nodes.length === 3")
    front.run("() => Object.assign(app.graph.nodes.at(-1), { title: 'Copy', pos: [900, 60] })")
    copy = front.panel("Copy")
    copy.get_by_role("button", name="cat").click()
    assert roles(copy)["1 cat"] == "scene"
    assert "scene: cat" in front.value("Copy", "override")
    assert front.value(WORDS, "override") == ""
    assert roles(front.panel(WORDS))["1 cat"] == "subject"


def test_chips_in_a_subgraph(either_front: Front):
    front = either_front
    parsed(front)
    front.add("PrimitiveStringMultiline", "Prompt", (100, 600))
    front.set("Prompt", value="a cat on the beach")
    front.link("Prompt", 0, WORDS, "text")
    front.run("app.canvas.selectItems(app.graph.nodes)")
    command(front, "Comfy.Graph.ConvertToSubgraph")
    front.wait("app.graph.nodes.length === 1 && app.graph.nodes[0].subgraph")
    front.run("app.canvas.openSubgraph(app.graph.nodes[0].subgraph, app.graph.nodes[0])")
    front.wait("app.canvas.graph.nodes.length === 3")
    front.look_at("Checkpoint")
    panel = click(front, "cat")
    assert roles(panel)["1 cat"] == "scene"
    front.set("Prompt", value="a horse in a field")
    front.set(WORDS, override="")
    front.press_run()
    expect(panel.get_by_role("button", name="horse: subject")).to_be_visible()


def test_chips_after_another_tab(either_front: Front):
    front = either_front
    parsed(front, "a horse in a field")
    command(front, "Comfy.NewBlankWorkflow")
    front.wait("app.graph.nodes.length === 0")
    parsed(front)
    command(front, "Workspace.PreviousOpenedWorkflow")
    front.wait("app.graph.nodes.some((node) => node.widgets?.some((widget) => widget.value === 'a horse in a field'))")
    front.look_at("Checkpoint")
    panel = click(front, "horse")
    assert roles(panel)["1 horse"] == "scene"
    command(front, "Workspace.NextOpenedWorkflow")
    front.wait("!app.graph.nodes.some((node) => node.widgets?.some((widget) => widget.value === 'a horse in a field'))")
    front.look_at("Checkpoint")
    panel = click(front, "cat")
    assert roles(panel)["1 cat"] == "scene"
