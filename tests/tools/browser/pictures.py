"""Pictures of the real user interface for the README and the docs (`make ui-pictures`): js/docs/images/ui_*.webp."""

from __future__ import annotations

import io
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main, whole_file
from ..comfyui.paths import ROOT, TOY_CHECKPOINT
from ..comfyui.server import ComfyServer
from ..workflows.index import BY_GRAPH
from ..workflows.pages import CHINESE_NOTE
from .front import FLAGS, Front
from .install import install
from .templates import CASE

IMAGES = ROOT / "js" / "docs" / "images"
MOST_BYTES = 40_000
SETTLED = 2000  # milliseconds until animations have ended; only how a picture looks hangs on it
QUIET = {"Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}  # settings of the page


def save(file: Path, data: bytes) -> None:
    """Write a screenshot as the best WebP that is small enough."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for quality in range(80, 20, -6):
        buffer = io.BytesIO()
        picture.save(buffer, format="WEBP", quality=quality, method=6)
        if buffer.tell() <= MOST_BYTES:
            break
    with whole_file(file) as part:
        part.write_bytes(buffer.getvalue())
    print(file, picture.size, buffer.tell())


def load(front: Front, name: str, image: str, prompt: str) -> None:
    """Open a shipped workflow with checkpoint, picture and prompt filled in."""
    graph = deepcopy(BY_GRAPH[name].page)
    # Without the Chinese note: many machines have no font for it.
    graph["nodes"] = [each for each in graph["nodes"] if each.get("title") != CHINESE_NOTE]
    values = {"CheckpointLoaderSimple": TOY_CHECKPOINT.name, "LoadImage": image, "ELPromptWords": prompt}
    for each in graph["nodes"]:
        if each["type"] in values:
            each["widgets_values"][0] = values[each["type"]]
    front.load(graph)


def node(front: Front, title: str) -> bytes:
    """A screenshot of one node."""
    front.look_at(title)
    number = front.run("title => app.graph.nodes.find((node) => node.title === title).id", title)
    return front.page.locator(f"[data-node-id='{number}']").screenshot()


def take(front: Front, client: ComfyClient, folder: Path, prepare: Callable[[Front], None] = lambda _: None) -> None:
    """Take them all. prepare: is called with every workflow that is open, before its run."""
    image = client.upload_image(Image.fromarray(CASE.picture().image), "reference.png")
    front.run("async () => { await app.refreshComboInNodes(); }")  # the page knows of the picture
    load(front, "02_aggregated_attention", image, CASE.prompt)
    prepare(front)
    front.press_run()
    front.panel("Heat maps").locator("canvas").wait_for()
    front.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    front.page.wait_for_timeout(SETTLED)
    save(folder / "ui_workflow.webp", front.page.screenshot())
    save(folder / "ui_chips.webp", node(front, "Prompt"))
    load(front, "05_explain_picture", image, f"{CASE.reference.subject} on {CASE.scene}")
    prepare(front)
    front.press_run()
    front.panel("Heat maps").locator("canvas").wait_for()
    save(folder / "ui_inspector.webp", node(front, "Heat maps"))


def main() -> None:
    """Take them all, of whole runs, into the folder of the help pages' pictures."""
    with ComfyServer() as server, ComfyClient(server) as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=install(), args=FLAGS)
        take(Front(browser, server, settings=QUIET), client, IMAGES)
        browser.close()


if __name__ == "__main__":
    run_main(main)
