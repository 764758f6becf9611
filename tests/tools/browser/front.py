"""The ComfyUI front end in a browser page, as a user works with it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from playwright.sync_api import Browser, ConsoleMessage, Error, Locator, expect

from ..comfyui.base import PACK_NAME
from ..comfyui.paths import ROOT
from ..comfyui.server import ComfyServer

# No sandbox, because containers run as root; the rest keeps the browser off the network and the graphics card.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
SCREENSHOTS = ROOT / "output" / "browser"
OURS = f"/extensions/{PACK_NAME}/"
SLOW = 240_000  # milliseconds: far more than any machine needs
expect.set_options(timeout=SLOW)
# How many times slower than usual pages are. On such a page pictures, and what only our panels ask for, come late.
SLOW_PAGE = float(os.environ.get("SLOW_PAGE") or 1)
LATE = f"""() => {{
    const {{ fetch }} = window;
    window.fetch = async (...asked) => {{
        const answer = await fetch(...asked);
        const isLate = /\\/(view|explainable_latents)\\b/.test(asked[0]);
        if (isLate) await new Promise((done) => setTimeout(done, {1000 * (SLOW_PAGE - 1)}));
        return answer;
    }};
}}"""
POLL, RUN_POLLS = 100, 5000  # milliseconds, and how often a run is asked for
SIZE = {"width": 1600, "height": 1000}
VISITED = "Comfy.TutorialCompleted"  # unless this is set, the page opens the templates when it is there
SETTINGS = {
    VISITED: True,
    "Comfy.Locale": "en",
    "Comfy.ColorPalette": "dark",
    "Comfy.Workflow.ShowMissingModelsWarning": False,
    "Comfy.RightSidePanel.IsOpen": False,
    "Comfy.Minimap.Visible": True,
    "Comfy.Graph.CanvasInfo": True,
    # On a busy machine a button that is let go late would be a drag.
    "Comfy.Pointer.ClickBufferTime": SLOW,
}
# The spinner ends when the workflow of the last visit (or none) is open, and the page is whole when it hears of
# selections.
READY = """() => {
    const page = window.app?.extensionManager;
    return page?.spinner === false && page.workflow.activeWorkflow?.changeTracker && window.app.canvas.onSelectionChange
        && LiteGraph.registered_node_types.ELParseSubjects
        && [...document.querySelectorAll("link[rel=stylesheet]")].every(({ sheet }) => sheet);
}"""
# Empties the graph. The host keeps the values of widgets by graph and node number, and all empty graphs have the same:
# without one of its own a new node would show what a node of an earlier graph had.
CLEAR = "() => { app.graph.clear(); app.graph.id = crypto.randomUUID(); app.canvas.setDirty(true, true); }"
# Then one empty workflow without a history is open, looked at as in a new page, and settings are what they were told.
RESET = f"""async (settings) => {{
    const {{ command, setting, workflow }} = app.extensionManager;
    await command.execute("Comfy.NewBlankWorkflow");
    for (const other of [...workflow.openWorkflows].filter((each) => each !== workflow.activeWorkflow)) {{
        await workflow.closeWorkflow(other);
    }}
    ({CLEAR})();
    for (const [name, value] of Object.entries(settings)) {{
        if (setting.get(name) !== value) await setting.set(name, value);
    }}
    document.activeElement?.blur();
    app.canvas.ds.reset();
}}"""
# The runs that the page has heard the end of: until then it may still be told what they gave.
HEAR_ENDS = """() => {
    if (window.endedRuns) return;
    window.endedRuns = new Set();
    for (const end of ["execution_success", "execution_error", "execution_interrupted"]) {
        app.api.addEventListener(end, ({ detail }) => window.endedRuns.add(detail.prompt_id));
    }
}"""
DRAWN_TWICE = "async () => { for (const _ of [1, 2]) await new Promise(requestAnimationFrame); }"
RESTORED = "!app.extensionManager.workflow.activeWorkflow.changeTracker._restoringState"  # undo and redo have ended
# No panel of ours waits for the server or for a picture: until then it shows what was there before.
SETTLED = f"""() => {{
    const graphs = [app.graph, ...(app.graph.subgraphs?.values() ?? [])];
    const panels = graphs.flatMap(({{ nodes }}) => nodes).flatMap(({{ widgets }}) => widgets ?? [])
        .filter(({{ type }}) => type === "el-panel").map(({{ element }}) => element);
    const isBusy = (each) => each.ariaBusy === "true" || each.querySelector("[aria-busy=true]");
    return {RESTORED} && !app.configuringGraph && !panels.some(isBusy);
}}"""
# Where an element is, once it is at the same place in two frames.
STILL = """async (element) => {
    for (let before; ; ) {
        await new Promise(requestAnimationFrame);
        const { x, y, width, height } = element.getBoundingClientRect();
        const now = JSON.stringify([x, y, width, height]);
        if (now === before && width && height) return { x, y, width, height };
        before = now;
    }
}"""
FIND = "title => app.canvas.graph.nodes.find(node => node.title === title)"  # in the graph or subgraph that is open


def still_box(found: Locator) -> dict[str, float]:
    """Where an element is on the page, once it no longer moves: x, y, width and height in pixels.

    Playwright waits for that before it clicks; who moves the mouse has to ask.
    """
    return found.evaluate(STILL)


class Front:
    """A fresh page of the front end; `vue` chooses Nodes 2.0 instead of the classic renderer.

    settings: others than those in SETTINGS, by the same names; ValueError for any other, which no page would put back.
    """

    def __init__(
        self,
        browser: Browser,
        server: ComfyServer,
        *,
        vue: bool = True,
        javascript: bool = True,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if unknown := sorted(set(settings or {}) - set(SETTINGS)):
            raise ValueError(
                f"{', '.join(unknown)}: the server keeps settings, so each needs its usual value in SETTINGS"
            )
        self.server = server
        self.vue = vue
        self.errors: list[str] = []
        self.settings = {**SETTINGS, "Comfy.VueNodes.Enabled": vue, **(settings or {})}
        self.context = browser.new_context(viewport=SIZE)
        self.context.set_default_timeout(SLOW)
        if not javascript:
            self.context.route(f"**{OURS}*.js", lambda route: route.abort())
        self.page = self.context.new_page()
        if SLOW_PAGE > 1:
            self.context.add_init_script(f"({LATE})()")
            throttling = self.context.new_cdp_session(self.page)
            throttling.send("Emulation.setCPUThrottlingRate", {"rate": SLOW_PAGE})
        self.page.on("console", self._hear)
        self.page.on("pageerror", self._crash)
        self.open()

    def open(self) -> None:
        """Load the page anew, and close the templates where the host opens them."""
        self.page.mouse.move(0, 0)  # where it points at nothing of ours
        # A page that is still there may save settings of its own at the same moment, and the host then loses ours:
        # what the new page is told is what counts.
        told: dict[str, Any] = {}
        while not self.settings.items() <= told.items():
            requests.post(f"{self.server.url}/api/settings", json=self.settings, timeout=SLOW).raise_for_status()
            with self.page.expect_response(lambda answer: answer.url.endswith("/api/settings")) as answer:
                self.page.goto(self.server.url)
            told = answer.value.json()
        self.wait(READY)
        if not told[VISITED]:
            dialog = self.page.get_by_role("dialog")
            dialog.get_by_role("button", name="Close").click()
            dialog.wait_for(state="hidden")

    def reset(self) -> None:
        """Make the page as good as new for another test, in a tenth of the time that opening it takes.

        What the browser has stored stays, and so do scripts that were put into the page: who needs or makes those opens
        a page of his own.
        """
        self.page.unroute_all(behavior="wait")
        self.page.mouse.move(0, 0)
        self._wait_for_the_queue()
        self.run(RESET, self.settings)
        self.errors.clear()

    def close(self) -> None:
        """Close the page and forget its cookies and storage."""
        self.context.close()

    def shot(self, name: str) -> Path:
        """Save a screenshot for people to look at."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        path = SCREENSHOTS / f"{name}.png"
        self.page.screenshot(path=path)
        return path

    def add_from_search(self, name: str, *marks: str) -> None:
        """Find a node in the search by its name, choose the first one that shows these marks, and put it down."""
        self.page.mouse.move(500, 500)
        # By its command: on a busy machine the canvas may not take two clicks as a double click.
        self.run("app.extensionManager.command.execute('Workspace.SearchBox.Toggle')")
        self.page.get_by_role("combobox").fill(name)
        found = self.page.get_by_role("option").filter(has_text=name)
        for mark in marks:
            found = found.filter(has_text=mark)
        found.first.click()
        found.first.wait_for(state="hidden")
        self.wait("app.canvas.state.ghostNodeId != null")  # it hangs at the pointer
        self.wait("!document.elementFromPoint(500, 480)?.closest('[role=dialog], .p-dialog-mask')")
        self.page.mouse.click(500, 480)
        self.wait("app.canvas.state.ghostNodeId == null && app.graph.nodes.every((node) => !node.flags.ghost)")

    def press(self, key: str) -> None:
        """Press a key with the focus on the canvas, where users have it, and hold it until the page has acted on it.

        The front end reads keys when it draws next. Let go before that, as no finger is but a busy machine's page may
        make it, an undo or redo key would first record the graph as changed, which forgets what could be redone.
        """
        self.run("document.activeElement.blur()")
        *modifiers, last = key.split("+")
        for name in (*modifiers, last):
            self.page.keyboard.down(name)
            self.run(DRAWN_TWICE)
        for name in (last, *reversed(modifiers)):
            self.page.keyboard.up(name)
        self.wait(RESTORED)

    def run(self, script: str, argument: Any = None) -> Any:
        """The value of a JavaScript expression or function."""
        return self.page.evaluate(script, argument)

    def wait(self, script: str, argument: Any = None) -> None:
        """Return when a JavaScript expression or function gives something true."""
        self.page.wait_for_function(script, arg=argument)

    def settle(self) -> None:
        """Return when our panels show what the page and the server say by now, and the page has drawn that."""
        self.run(DRAWN_TWICE)
        self.wait(SETTLED)
        self.run(DRAWN_TWICE)

    def becomes(self, read: Callable[[], Any], expected: Any) -> None:
        """Return when what is read equals this; AssertionError with what was read last when it never does."""
        end = time.monotonic() + SLOW / 1000
        while (found := read()) != expected:
            assert time.monotonic() < end, f"{found!r} has not become {expected!r}"
            self.rest()

    def wait_until_kept(self, text: str) -> None:
        """Return when the front end has stored the workflow, with this text in it, for the next time it opens."""
        self.wait(
            "text => Object.values({ ...sessionStorage, ...localStorage }).some((stored) => stored.includes(text))",
            text,
        )

    def load(self, graph: Mapping[str, Any]) -> None:
        """Open a workflow, as dropping its file on the page does."""
        self.run("graph => app.loadGraphData(graph)", graph)

    def clear(self) -> None:
        """Empty the graph."""
        self.run(CLEAR)

    def add(self, node_class: str, title: str, place: tuple[int, int] = (100, 100)) -> None:
        """Put a node on the graph."""
        self.run(
            """([type, title, pos]) => {
                const node = LiteGraph.createNode(type);
                Object.assign(node, { title, pos });
                app.graph.add(node);
            }""",
            [node_class, title, place],
        )

    def link(self, source: str, output: int, target: str, name: str) -> None:
        """Connect two nodes."""
        self.run(
            f"""([source, output, target, name]) => {{
                const find = {FIND};
                const slot = find(target).inputs.findIndex((input) => input.name === name);
                find(source).connect(output, find(target), slot);
            }}""",
            [source, output, target, name],
        )

    def set(self, title: str, **values: Any) -> None:
        """Set widgets of a node."""
        self.run(
            f"""([title, values]) => {{
                for (const [name, value] of Object.entries(values)) {{
                    const widget = ({FIND})(title).widgets.find((widget) => widget.name === name);
                    widget.value = value;
                    widget.callback?.(value);
                }}
            }}""",
            [title, values],
        )

    def value(self, title: str, name: str) -> Any:
        """The value of a node's widget."""
        return self.run(
            f"([title, name]) => ({FIND})(title).widgets.find((widget) => widget.name === name).value", [title, name]
        )

    def titles(self, node_class: str) -> list[str]:
        """The titles of the nodes of a class."""
        return self.run("type => app.graph.nodes.filter(n => n.type === type).map(n => n.title)", node_class)

    def prompt(self) -> dict[str, Any]:
        """The graph in API format, as the Run button would send it."""
        return self.run("async () => (await app.graphToPrompt()).output")

    def press_run(self, meanwhile: Callable[[], object] = lambda: None) -> dict[str, Any]:
        """Click the Run button, wait until the page shows what the run gave and return its outputs by node id.

        meanwhile: what the user does while it runs. AssertionError with the server's words when it fails.
        """
        self.run(HEAR_ENDS)
        with self.page.expect_response(lambda answer: answer.url.endswith("/api/prompt")) as answer:
            self.page.get_by_test_id("queue-button").click()
        queued = answer.value.json()
        assert not queued.get("error"), json.dumps(queued, indent=1)
        assert not queued.get("node_errors"), json.dumps(queued, indent=1)
        prompt_id = queued["prompt_id"]
        meanwhile()
        done = self.ended(prompt_id)
        self.wait("id => window.endedRuns.has(id)", prompt_id)
        self.settle()
        assert done["status"]["status_str"] == "success", json.dumps(done["status"], indent=1)
        return done["outputs"]

    def ended(self, prompt_id: str) -> dict[str, Any]:
        """The history's entry of a run, once it has ended; the page may be closed by then."""
        for _ in range(RUN_POLLS):
            if entry := self._told(f"/history/{prompt_id}").get(prompt_id):
                return entry
            self.rest()
        raise AssertionError(f"run {prompt_id} did not end")

    def rest(self) -> None:
        """Wait a moment, in which what the page does is heard."""
        if self.page.is_closed():
            time.sleep(POLL / 1000)
        else:
            self.page.wait_for_timeout(POLL)

    def look_at(self, title: str, scale: float = 1.0) -> None:
        """Scroll the canvas so that the node stands at its upper left, and return when that has been drawn."""
        self.run(
            f"""async ([title, scale]) => {{
                const [x, y] = ({FIND})(title).pos;
                app.canvas.ds.scale = scale;
                app.canvas.ds.offset = [160 / scale - x, 140 / scale - y];
                app.canvas.setDirty(true, true);
                for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
            }}""",
            [title, scale],
        )

    def panel(self, title: str, name: str | None = None) -> Locator:
        """Our panel on a node, when it is shown with what it has to show; its name only where a node has several."""
        self.wait(  # a new node gets it a moment after it is there
            f"""([title, name, id]) => {{
                const isIt = (widget) => widget.type === "el-panel" && (!name || widget.name === name);
                const widget = ({FIND})(title)?.widgets?.find(isIt);
                // that of a node which was in its place may still be on the page
                for (const other of document.querySelectorAll(`[data-testid="${{id}}"]`)) delete other.dataset.testid;
                if (widget) widget.element.dataset.testid = id;
                return Boolean(widget);
            }}""",
            [title, name, found_by := f"panel {name or ''} of {title}"],
        )
        found = self.page.get_by_test_id(found_by)
        found.wait_for()
        self.settle()
        return found

    def _wait_for_the_queue(self) -> None:
        """Return when no run of another test goes on, of which the page would be told."""
        self.becomes(lambda: [each for runs in self._told("/queue").values() for each in runs], [])

    def _told(self, route: str) -> Any:
        return requests.get(self.server.url + route, timeout=SLOW / 1000).json()

    def _hear(self, message: ConsoleMessage) -> None:
        where = message.location.get("url", "")
        if f"{OURS}docs/" in where:
            return  # the front end asks for help pages in the user's language first, which need not exist
        if message.type in ("error", "warning") and OURS in f"{message.text} {where}":
            self.errors.append(message.text)

    def _crash(self, error: Error) -> None:
        if OURS in f"{error.message} {error.stack}":
            self.errors.append(f"{error.message}\n{error.stack}")
