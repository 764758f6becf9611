"""The shipped workflows filled in so that they run on the toy checkpoint in seconds."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
from PIL import Image

from ..comfyui.client import ComfyClient
from ..comfyui.paths import ROOT, TOY_CHECKPOINT
from ..toy_world.cases import keep_the_context
from .front import Front

NAMES = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
CASE = keep_the_context()[0]
MIDDLE = [[64, 64]]  # a point of the picture
# Widgets that make a run long, and what they are while the browser is tested.
SHORT = {"steps": 8, "manipulate_at": "2, 4", "width": 128, "height": 128}


def fill(front: Front, client: ComfyClient) -> None:
    """Put the toy checkpoint and a toy picture, whose mask is its subject, into the open workflow; shorten its run."""
    buffer = io.BytesIO()
    picture = CASE.picture()
    image = Image.fromarray(picture.image)
    image.putalpha(Image.fromarray(np.where(picture.mask, 0, 255).astype(np.uint8)))
    image.save(buffer, format="PNG")
    image = client.upload_image(buffer.getvalue(), "browser-reference.png")
    front.run("async () => { await app.refreshComboInNodes(); }")
    for title in front.titles("CheckpointLoaderSimple"):
        front.set(title, ckpt_name=TOY_CHECKPOINT.name)
    for title in front.titles("LoadImage"):
        front.set(title, image=image)
    for title in front.titles("ELFindPoints"):
        front.set(title, points=json.dumps(MIDDLE))
    front.run(
        """short => {
            for (const node of app.graph.nodes) {
                for (const widget of node.widgets ?? []) {
                    if (widget.name in short) widget.value = short[widget.name];
                }
            }
        }""",
        SHORT,
    )


def shipped(name: str) -> dict[str, Any]:
    """A workflow as it is shipped, in UI format."""
    return json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))


def shipped_prompt(name: str) -> dict[str, Any]:
    """The same in API format."""
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
