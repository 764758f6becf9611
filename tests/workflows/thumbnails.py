"""Make the gallery pictures from real runs: `python -m tests.workflows.thumbnails` (`make thumbnails`)."""

from __future__ import annotations

from PIL import Image

from ..comfyui.client import ComfyClient, Result
from ..comfyui.command import run_main
from ..comfyui.server import ComfyServer
from ..demo import CASES
from .graphs import ROOT, Workflow
from .pipelines import fill_picture, run_case

SIDE = 256
CASE = CASES[1]
# Workflow -> the pictures that follow the reference, from left to right: title of the node, which of its pictures.
SHOWN: dict[str, tuple[tuple[str, int], ...]] = {
    "01_baseline": (("Result", 0),),
    "02_aggregated_attention": (("What the words attend to", -1), ("Masks", -1), ("Result", 0)),
    "05_explain_picture": (("What the words attend to", 0), ("What the words attend to", 1)),
}


def strip(pictures: list[Image.Image]) -> Image.Image:
    """The pictures side by side, two on a row, enlarged without smoothing."""
    rows = (len(pictures) + 1) // 2
    page = Image.new("RGB", (2 * SIDE, rows * SIDE), "white")
    for i, picture in enumerate(pictures):
        enlarged = picture.convert("RGB").resize((SIDE, SIDE), Image.Resampling.NEAREST)
        page.paste(enlarged, (i % 2 * SIDE, i // 2 * SIDE))
    return page


def explain(client: ComfyClient, workflow: Workflow) -> Result:
    """Run the workflow that explains a picture on the case's reference."""
    kind = CASE.reference
    image = client.upload_image(Image.fromarray(CASE.picture().image), "explained.png")
    return client.run(fill_picture(workflow, f"{kind.subject} on {kind.scene}", "Picture to explain", image).graph)


def main() -> None:
    """Write `workflows/<name>.jpg` for every shipped workflow."""
    with ComfyServer() as server, ComfyClient(server) as client:
        for name, shown in SHOWN.items():
            workflow = Workflow.shipped(name)
            result = explain(client, workflow) if name == "05_explain_picture" else run_case(client, workflow, CASE)
            made = [result.images(workflow.node(title))[which] for title, which in shown]
            page = strip([Image.fromarray(CASE.picture().image), *made])
            page.save(ROOT / "workflows" / f"{name}.jpg", quality=90)


if __name__ == "__main__":
    run_main(main)
