"""The templates filled in so that they run on the toy checkpoint in seconds."""

from __future__ import annotations

import io
import json

import numpy as np
from PIL import Image

from ..comfyui.client import ComfyClient
from ..comfyui.paths import TOY_CHECKPOINT
from ..toy_world.cases import keep_the_context
from .front import Front

CASE = keep_the_context()[0]
MIDDLE = [[64, 64]]  # a point of the picture
# Nodes that take a mask, and the pictures that have it: the templates mark one colour of another picture instead.
MARKED = {"Find what is marked": "Picture A", "Teach what is marked": "Picture that teaches"}
# Widgets that make a run long, and what they are while the browser is tested.
SHORT = {"steps": 8, "manipulate_at": "2, 4", "width": 128, "height": 128}
# Writes small random models where templates for transformers look for theirs: a node of `workflows.small_models`.
SMALL_MODELS = {"1": {"class_type": "TestSmallModels", "inputs": {}}}


def fill(front: Front, client: ComfyClient) -> None:
    """Put the toy checkpoint and a toy picture, whose mask is its subject, into the open workflow; shorten its run.

    A workflow for transformers gets small random models, and so does one with a CLIP image encoder.
    """
    if front.titles("UNETLoader") or front.titles("CLIPVisionLoader"):
        client.run(SMALL_MODELS)
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
    titles = front.run("app.graph.nodes.map(node => node.title)")
    for title, loader in MARKED.items():
        if title in titles:
            front.link(loader, 1, title, "mask")
    for title in front.titles("ELFindPoints"):
        front.set(title, points=json.dumps(MIDDLE))
    shorten(front)


def shorten(front: Front) -> None:
    """Make the run of the open workflow short."""
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
