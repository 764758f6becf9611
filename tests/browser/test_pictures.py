"""The screenshots of README and help pages can be taken of the interface as it is."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.tools.browser.front import Front
from tests.tools.browser.pictures import IMAGES, MOST_BYTES, QUIET, take
from tests.tools.browser.recording import FILE as RECORDING
from tests.tools.browser.templates import shorten
from tests.tools.comfyui.client import ComfyClient
from tests.tools.thorough import THOROUGH


@THOROUGH  # half a minute, and what it shows other tests look at
def test_all_screenshots_are_taken(open_front, client: ComfyClient, tmp_path: Path):
    front: Front = open_front(settings=QUIET)
    take(front, client, tmp_path, shorten)
    assert front.run("app.graph.nodes.filter((node) => node.has_errors).map((node) => node.title)") == []
    taken = {file.name: Image.open(file).convert("RGB") for file in tmp_path.iterdir()}
    assert {*taken, RECORDING.name} == {file.name for file in IMAGES.glob("ui_*.webp")}
    for name, picture in taken.items():
        assert (tmp_path / name).stat().st_size <= MOST_BYTES
        assert min(picture.size) > 200
        assert len(picture.getcolors(picture.width * picture.height)) > 500, f"{name} shows next to nothing"
