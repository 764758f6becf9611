"""A moving picture of a run that pauses, for the README (`make ui-recording`): js/docs/images/ui_pause.webp."""

from __future__ import annotations

import io

from PIL import Image
from playwright.sync_api import Locator, Page, expect, sync_playwright

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main, whole_file
from ..comfyui.server import ComfyServer
from .front import FLAGS, HEAR_ENDS, Front
from .install import install
from .pictures import IMAGES, QUIET, load
from .templates import CASE

FILE = IMAGES / "ui_pause.webp"
MOST_BYTES = 2_000_000
VIEW = {"width": 1280, "height": 800}
WIDTH = 960  # of the moving picture
SHORT, LONG = 120, 1500  # milliseconds that a frame is shown
SETTLED = 2000  # milliseconds until animations have ended; only how a picture looks hangs on it
# Screenshots have no pointer.
POINTER = """() => {
    const dot = document.createElement("div");
    dot.style = "position:fixed; z-index:99999; width:16px; height:16px; margin:-8px; border-radius:50%;"
        + "border:2px solid #fff; background:#f80a; pointer-events:none; left:50%; top:50%";
    document.body.append(dot);
    addEventListener("pointermove", ({ clientX, clientY }) => {
        Object.assign(dot.style, { left: `${clientX}px`, top: `${clientY}px` });
    }, true);
}"""
# What is painted: shares of the painter's width and height.
STROKES = (
    ((0.3, 0.9), (0.3, 0.55), (0.45, 0.6), (0.45, 0.85), (0.58, 0.85), (0.58, 0.5)),
    ((0.55, 0.6), (0.62, 0.35), (0.75, 0.4)),
)


class Recording:
    """Frames of one page, each with the milliseconds that it is shown."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._frames: list[tuple[Image.Image, int]] = []

    def frame(self, milliseconds: int) -> None:
        """Add the page as it is now."""
        picture = Image.open(io.BytesIO(self._page.screenshot())).convert("RGB")
        height = picture.height * WIDTH // picture.width
        self._frames.append((picture.resize((WIDTH, height), Image.Resampling.LANCZOS), milliseconds))

    def point(self, target: Locator) -> None:
        """Move the pointer to a button and press it."""
        target.hover()
        self.frame(LONG // 2)
        target.click()

    def paint(self, painter: Locator, places: tuple[tuple[float, float], ...]) -> None:
        """Draw a line on the painter."""
        box = painter.bounding_box()
        mouse = self._page.mouse
        for i, (x, y) in enumerate(places):
            mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=1 if i == 0 else 6)
            mouse.down() if i == 0 else self.frame(2 * SHORT)
        mouse.up()
        self.frame(LONG // 2)

    def save(self) -> None:
        """Write the best animated WebP that is small enough."""
        (first, *others), durations = zip(*self._frames, strict=True)
        for quality in range(80, 10, -10):
            buffer = io.BytesIO()
            how = {"format": "WEBP", "save_all": True, "loop": 0, "quality": quality, "method": 4}
            first.save(buffer, append_images=others, duration=list(durations), **how)
            if buffer.tell() <= MOST_BYTES:
                break
        with whole_file(FILE) as part:
            part.write_bytes(buffer.getvalue())
        print(FILE, first.size, len(durations), "frames", buffer.tell())


def opened(front: Front, image: str) -> None:
    """Open the shipped workflow with checkpoint, picture and prompt filled in, all of it in view."""
    load(front, "26_pause_and_paint", image, CASE.prompt)
    front.run("app.extensionManager.command.execute('Comfy.Canvas.FitView')")
    front.page.wait_for_timeout(SETTLED)


def panel(front: Front, title: str) -> Locator:
    """The panel of the pause with this title, once its picture is there."""
    expect(front.page.get_by_role("button", name=title)).to_be_visible()
    shown = front.page.locator(".el-pause-panel")
    expect(shown.get_by_role("img").first).to_be_visible()
    return shown


def recorded(front: Front, recording: Recording) -> None:
    """Run, pause, paint, go on; then back to the first stop, for a second variant."""
    recording.frame(LONG)
    recording.point(front.page.get_by_test_id("queue-button"))
    shown = panel(front, "Paused at step 5/35")
    recording.frame(LONG)
    recording.point(shown.get_by_role("button", name="clear"))
    shown.get_by_label("size").fill("2")
    for places in STROKES:
        recording.paint(shown.locator(".el-painter"), places)
    shown.get_by_label("stop once more at the end").check()
    recording.point(shown.get_by_role("button", name="Continue"))
    shown = panel(front, "Paused at step 21/35")
    recording.frame(LONG)
    recording.point(shown.get_by_role("button", name="Continue"))
    shown = panel(front, "At the end of the run")
    recording.frame(LONG)
    recording.point(shown.get_by_role("button", name="Go back to before step 5"))
    shown = panel(front, "Paused at step 5/35")
    recording.frame(LONG)
    recording.point(shown.get_by_role("button", name="Continue"))
    recording.point(panel(front, "Paused at step 21/35").get_by_role("button", name="Continue"))
    shown = panel(front, "At the end of the run")
    recording.frame(LONG)
    recording.point(shown.get_by_role("button", name="Finish"))
    expect(front.page.locator(".el-pause-badge")).to_have_count(0)
    front.wait("window.endedRuns.size")
    front.look_at(*front.titles("SaveImage"), 0.6)
    front.page.wait_for_timeout(SETTLED)
    recording.frame(2 * LONG)


def main() -> None:
    """Make it."""
    with ComfyServer() as server, ComfyClient(server) as client, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=install(), args=FLAGS)
        image = client.upload_image(Image.fromarray(CASE.picture().image), "reference.png")
        front = Front(browser, server, settings=QUIET)
        front.page.set_viewport_size(VIEW)
        opened(front, image)
        front.run(POINTER)
        front.run(HEAR_ENDS)
        recording = Recording(front.page)
        recorded(front, recording)
        recording.save()
        browser.close()


if __name__ == "__main__":
    run_main(main)
