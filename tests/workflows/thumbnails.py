"""Make the gallery pictures from real runs: `python -m tests.workflows.thumbnails` (`make thumbnails`)."""

from __future__ import annotations

from PIL import Image

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main
from ..comfyui.server import ComfyServer
from ..demo import CASES
from .graphs import ROOT, Workflow
from .pipelines import run_case

SIDE = 256
CASE = CASES[1]
# Workflow -> titles of the nodes whose last picture follows the reference, from left to right.
SHOWN = {
    "01_baseline": ("Result",),
    "02_aggregated_attention": ("What the words attend to", "Masks", "Result"),
}


def strip(pictures: list[Image.Image]) -> Image.Image:
    """The pictures side by side, two on a row, enlarged without smoothing."""
    rows = (len(pictures) + 1) // 2
    page = Image.new("RGB", (2 * SIDE, rows * SIDE), "white")
    for i, picture in enumerate(pictures):
        enlarged = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        page.paste(enlarged, (i % 2 * SIDE, i // 2 * SIDE))
    return page


def main() -> None:
    """Write `workflows/<name>.jpg` for every shipped workflow."""
    with ComfyServer() as server, ComfyClient(server) as client:
        for name, titles in SHOWN.items():
            workflow = Workflow.shipped(name)
            result = run_case(client, workflow, CASE)
            made = [result.images(workflow.node(title))[-1] for title in titles]
            page = strip([Image.fromarray(CASE.picture().image), *made])
            page.save(ROOT / "workflows" / f"{name}.jpg", quality=90)


if __name__ == "__main__":
    run_main(main)
