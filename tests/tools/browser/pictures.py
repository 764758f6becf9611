"""Pictures of the real user interface for the README and the docs (`make ui-pictures`): js/docs/images/ui_*.webp."""

from __future__ import annotations

import io

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
QUIET = {"Comfy.Minimap.Visible": False, "Comfy.Graph.CanvasInfo": False}
# The settings of a page that is open; the server, which keeps them, ends with this program.
SET = """settings => Promise.all(
    Object.entries(settings).map(([name, value]) => app.extensionManager.setting.set(name, value))
)"""


def save(name: str, data: bytes) -> None:
    """Write a screenshot as the best WebP that is small enough."""
    picture = Image.open(io.BytesIO(data)).convert("RGB")
    for quality in range(80, 20, -6):
        buffer = io.BytesIO()
        picture.save(buffer, format="WEBP", quality=quality, method=6)
        if buffer.tell() <= MOST_BYTES:
            break
    with whole_file(IMAGES / f"ui_{name}.webp") as part:
        part.write_bytes(buffer.getvalue())
    print(IMAGES / f"ui_{name}.webp", picture.size, buffer.tell())


def run(front: Front, name: str, image: str, prompt: str) -> None:
    """Open a shipped workflow with checkpoint, picture and prompt filled in, and run it to its end."""
    graph = BY_GRAPH[name].page
    # Without the Chinese note: many machines have no font for it.
    graph["nodes"] = [each for each in graph["nodes"] if each.get("title") != CHINESE_NOTE]
    values = {"CheckpointLoaderSimple": TOY_CHECKPOINT.name, "LoadImage": image, "ELPromptWords": prompt}
    for each in graph["nodes"]:
        if each["type"] in values:
            each["widgets_values"][0] = values[each["type"]]
    front.load(graph)
    front.press_run()


def node(front: Front, title: str) -> bytes:
    """A screenshot of one node."""
    front.look_at(title)
    number = front.run("title => app.graph.nodes.find((node) => node.title === title).id", title)
    return front.page.locator(f"[data-node-id='{number}']").screenshot()


def main() -> None:
    """Make them all."""
    with ComfyServer() as server, ComfyClient(server) as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=install(), args=FLAGS)
        image = client.upload_image(Image.fromarray(CASE.picture().image), "reference.png")
        front = Front(browser, server)
        front.run(SET, QUIET)
        run(front, "02_aggregated_attention", image, CASE.prompt)
        front.panel("Heat maps").locator("canvas").wait_for()
        front.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        front.page.wait_for_timeout(SETTLED)
        save("workflow", front.page.screenshot())
        save("chips", node(front, "Prompt"))
        run(front, "05_explain_picture", image, f"{CASE.reference.subject} on {CASE.scene}")
        front.panel("Heat maps").locator("canvas").wait_for()
        save("inspector", node(front, "Heat maps"))
        browser.close()


if __name__ == "__main__":
    run_main(main)
