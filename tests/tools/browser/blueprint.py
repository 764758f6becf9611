"""Make the subgraph blueprint in the real front end: `make blueprint`."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import sync_playwright

from ..comfyui.command import run_main, whole_file
from ..comfyui.paths import ROOT
from ..comfyui.server import ComfyServer
from .front import FLAGS, Front
from .install import install

NAME = "Aggregated attention img2img"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
DESCRIPTION = (
    "Keeps a picture's surroundings and draws another subject into it: a mask from the prompt's own attention, "
    "while it samples (Prompt with Words, Mask from Attention and KSampler (Masked Latent) in one)."
)
# Title -> class, place. What stands between the blueprint's inputs and its picture, and the masks that it shows.
NODES = {
    "Reference": ("VAEEncode", (0, 0)),
    "Prompt": ("ELPromptWords", (0, 160)),
    "Negative prompt": ("CLIPTextEncode", (0, 620)),
    "Where the subject is": ("ELMaskFromAttention", (460, 160)),
    "Sampler": ("ELMaskedLatentKSampler", (920, 0)),
    "Decode": ("VAEDecode", (1380, 0)),
    "Masks as pictures": ("MaskToImage", (1380, 160)),
    "Masks": ("PreviewImage", (1380, 320)),
}
LINKS = (
    ("Reference", 0, "Sampler", "latent_image"),
    ("Prompt", 0, "Sampler", "positive"),
    ("Prompt", 1, "Where the subject is", "subjects"),
    ("Negative prompt", 0, "Sampler", "negative"),
    ("Where the subject is", 0, "Sampler", "masking"),
    ("Sampler", 0, "Decode", "samples"),
    ("Sampler", 1, "Masks as pictures", "mask"),
    ("Masks as pictures", 0, "Masks", "images"),
)
# Name on the blueprint -> the inputs that it is connected to, in the order in which they stand on its face.
INPUTS = {
    "model": (("Sampler", "model"),),
    "clip": (("Prompt", "clip"), ("Negative prompt", "clip")),
    "vae": (("Reference", "vae"), ("Decode", "vae")),
    "reference": (("Reference", "pixels"),),
    "prompt": (("Prompt", "text"),),
    "words": (("Prompt", "override"),),
    "role": (("Where the subject is", "role"),),
    "negative prompt": (("Negative prompt", "text"),),
    "seed": (("Sampler", "seed"),),
    "steps": (("Sampler", "steps"),),
    "cfg": (("Sampler", "cfg"),),
    "denoise": (("Sampler", "denoise"),),
    "manipulate_at": (("Sampler", "manipulate_at"),),
}
OUTPUTS = {"image": ("Decode", 0), "latent": ("Sampler", 0), "masks": ("Sampler", 1), "saliency": ("Sampler", 2)}
SHOWN = "Masks"

MAKE = """([inputs, outputs, shown, title, description]) => {
    const { subgraph, node } = app.graph.convertToSubgraph(new Set(app.graph.nodes));
    const find = (title) => subgraph.nodes.find((each) => each.title === title);
    for (const slot of [...subgraph.inputs]) subgraph.removeInput(slot); // what the front end promotes by itself
    for (const [name, targets] of inputs) {
        let added;
        for (const [title, input] of targets) {
            const slot = find(title).inputs.find((each) => each.name === input);
            added ??= subgraph.addInput(name, slot.type);
            added.connect(slot, find(title));
        }
    }
    for (const [name, [title, slot]] of outputs) {
        const output = find(title).outputs[slot];
        subgraph.addOutput(name, output.type).connect(output, find(title));
    }
    subgraph.name = node.title = title;
    const { nodes, subgraphs } = app.canvas._serializeItems([node]);
    for (const each of subgraphs) Object.assign(each, { description, category: "explainable latents" });
    const preview = "$$canvas-image-preview"; // the front end's name for the pictures under a node
    const exposed = { name: preview, sourceNodeId: String(find(shown).id), sourcePreviewName: preview };
    nodes[0].properties.previewExposures = [exposed];
    Object.assign(nodes[0], { pos: [0, 0], size: [360, 560] });
    return { nodes, subgraphs };
}"""


def make(front: Front) -> dict[str, Any]:
    """The blueprint, in the form in which the front end saves one."""
    front.clear()
    for title, (node_class, place) in NODES.items():
        front.add(node_class, title, place)
    for link in LINKS:
        front.link(*link)
    made = front.run(MAKE, [list(INPUTS.items()), list(OUTPUTS.items()), SHOWN, NAME, DESCRIPTION])
    return {
        "revision": 0,
        "last_node_id": made["nodes"][0]["id"],
        "last_link_id": 0,
        "nodes": made["nodes"],
        "links": [],
        "version": 0.4,
        "definitions": {"subgraphs": made["subgraphs"]},
        "extra": {},
    }


def main() -> None:
    """Write the blueprint."""
    with ComfyServer() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=install(), args=FLAGS)
        text = json.dumps(make(Front(browser, server)), indent=2, ensure_ascii=False)
        browser.close()
    with whole_file(FILE) as part:
        part.write_text(text + "\n", encoding="utf-8")
    print(FILE)


if __name__ == "__main__":
    run_main(main)
