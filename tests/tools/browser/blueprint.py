"""Make the subgraph blueprint from the shipped workflow, in the real front end: `make blueprint`."""

from __future__ import annotations

import json
from typing import Any

from playwright.sync_api import sync_playwright

from ..comfyui.command import run_main, whole_file
from ..comfyui.paths import ROOT
from ..comfyui.server import ComfyServer
from .front import FLAGS, Front
from .install import install
from .templates import shipped

NAME = "Aggregated attention img2img"
FILE = ROOT / "subgraphs" / f"{NAME}.json"
DESCRIPTION = (
    "Keeps a picture's surroundings and draws another subject into it: a mask from the prompt's own attention, "
    "while it samples (Parse Subjects, Mask from Attention and KSampler (Masked Latent) in one)."
)
SOURCE = "02_aggregated_attention"
INSIDE = (
    "Positive prompt",
    "Negative prompt",
    "Reference latent",
    "Words",
    "Where the subject is",
    "Sampler",
    "Decode",
)
WIDGETS = ("steps", "cfg", "denoise", "manipulate_at")  # of the sampler, beside the seed
NAMES = {"text": "prompt", "text_1": "negative prompt", "pixels": "reference", "IMAGE": "image"}

MAKE = """([inside, widgets, names, title, description]) => {
    const items = new Set(app.graph.nodes.filter((n) => inside.includes(n.title)));
    const { subgraph, node } = app.graph.convertToSubgraph(items);
    const sampler = subgraph.nodes.find((n) => n.title === "Sampler");
    for (const widget of widgets) {
        const slot = sampler.inputs.find((input) => input.name === widget);
        subgraph.addInput(widget, slot.type).connect(slot, sampler);
    }
    for (const slot of [...subgraph.inputs]) if (names[slot.name]) subgraph.renameInput(slot, names[slot.name]);
    for (const slot of [...subgraph.outputs]) if (names[slot.name]) subgraph.renameOutput(slot, names[slot.name]);
    subgraph.name = node.title = title;
    node.widgets.find((widget) => widget.label === "prompt" || widget.name === "text").value = "a dog on the beach";
    const { nodes, subgraphs } = app.canvas._serializeItems([node]);
    for (const each of nodes[0].inputs) each.link = null;
    for (const each of nodes[0].outputs) each.links = [];
    for (const each of subgraphs) Object.assign(each, { description, category: "explainable latents" });
    Object.assign(nodes[0], { pos: [0, 0], size: [360, 420] });
    return { nodes, subgraphs };
}"""


def make(front: Front) -> dict[str, Any]:
    """The blueprint, in the form in which the front end saves one."""
    front.load(shipped(SOURCE))
    made = front.run(MAKE, [INSIDE, WIDGETS, NAMES, NAME, DESCRIPTION])
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
