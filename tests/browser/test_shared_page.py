"""A page that was used and reset is as good as a new one, which is why tests may share it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.browser.test_chips import WORDS, parsed, run_with_mistake
from tests.tools.browser.front import Front

STATE = """() => {
    const { workflow, setting } = app.extensionManager;
    const { undoQueue, redoQueue } = workflow.activeWorkflow.changeTracker;
    const seen = [...document.querySelectorAll("[data-testid]")].filter((each) => each.checkVisibility());
    return {
        workflows: workflow.openWorkflows.length,
        history: [undoQueue.length, redoQueue.length],
        nodes: app.graph.nodes.length,
        numbers: app.graph.state,
        selected: app.canvas.selectedItems.size,
        outputs: Object.keys(app.nodeOutputs),
        place: [app.canvas.ds.scale, ...app.canvas.ds.offset],
        focus: document.activeElement.tagName,
        panel: setting.get("Comfy.RightSidePanel.IsOpen"),
        dialogs: document.querySelectorAll("[role=dialog]").length,
        // what tells of the run before goes by itself, and each new workflow is marked as unsaved
        seen: [...new Set(seen.map((each) => each.dataset.testid))]
            .filter((id) => !/^(notification|queue-notification|workflow-dirty|job-)/.test(id)).sort(),
    };
}"""


def state(front: Front) -> dict[str, Any]:
    """What a test could find of another one, once the page has drawn all."""
    front.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    return front.run(STATE)


def test_nothing_is_left_of_what_was_done_before(either_front: Front):
    front = either_front
    front.reset()
    new = state(front)
    assert (new["workflows"], new["history"], new["nodes"]) == (1, [0, 0], 0)
    parsed(front)
    front.run("app.extensionManager.command.execute('Comfy.NewBlankWorkflow')")
    panel = parsed(front)
    front.run("window.dispatchEvent(new MouseEvent('mouseup'))")
    panel.get_by_role("button", name="cat").click()
    front.set(WORDS, text="a horse", override="zebra")
    front.run("app.canvas.selectItems(app.graph.nodes)")
    run_with_mistake(front)
    front.page.get_by_test_id("error-overlay-see-errors").click()
    front.page.get_by_test_id("properties-panel").wait_for()
    front.page.route("**/api/prompt", lambda route: route.abort())
    used = state(front)
    differing = {name for name in new if used[name] != new[name]}
    assert differing >= {"workflows", "history", "nodes", "numbers", "outputs", "place", "panel", "seen"}
    front.reset()
    expect(front.page.get_by_test_id("properties-panel")).to_be_hidden()
    front.becomes(lambda: state(front), new)
    assert front.errors == []
    parsed(front, "a dog")
    assert front.value(WORDS, "override") == ""


def test_a_setting_that_no_page_would_put_back_is_refused(open_front: Callable[..., Front]):
    with pytest.raises(ValueError, match=r"Comfy\.Nobody: the server keeps settings"):
        open_front(settings={"Comfy.Nobody": True})
