"""Lay out the API graphs as UI workflows: `python -m tests.workflows.layout` (`make workflows`).

`workflows/api/*.json` are written by hand; `workflows/*.json` are made from them, the pages below and the node
descriptions of a running ComfyUI, so that both always hold the same graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main
from ..comfyui.server import ComfyServer
from .graphs import ROOT, Workflow

WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Page:
    """Where everything lies: boxes (x, y, width, height) by node title, groups by title, and the note."""

    boxes: dict[str, Box]
    groups: dict[str, Box]
    note: str
    note_box: Box


_BASE: dict[str, Box] = {
    "Checkpoint": (0, 60, 340, 120),
    "Reference picture": (0, 260, 340, 380),
    "Reference latent": (0, 720, 340, 80),
    "Prompt": (420, 60, 400, 140),
    "Positive prompt": (420, 280, 400, 120),
    "Negative prompt": (420, 480, 400, 140),
}
_BASE_GROUPS: dict[str, Box] = {
    "1 · Model and reference": (-20, -20, 380, 840),
    "2 · Prompt": (400, -20, 440, 660),
}

PAGES: dict[str, Page] = {
    "01_baseline": Page(
        {
            **_BASE,
            "Sampler": (900, 60, 360, 340),
            "Decode": (900, 480, 360, 80),
            "Result": (1340, 60, 420, 480),
        },
        {**_BASE_GROUPS, "3 · Sample": (880, -20, 400, 600), "4 · Result": (1320, -20, 460, 580)},
        """## Baseline: plain image-to-image

The reference picture is noised to **strength 0.7** and denoised with the prompt. This is what the other workflows
are compared with: much noise loses the picture, little noise ignores the prompt. Change **denoise** to see it.

**Settings** of the source documents: 50 steps, cfg 8, DDPM, strength 0.7 (and 1.0). ComfyUI counts the steps that
are run: 50 steps at strength 0.7 are **35 steps at denoise 0.7**; `ddim_uniform` spaces them as the documents do.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size the model likes (512 × 512 for SD 1.5).
The toy checkpoint of the tests wants 128 × 128 pictures and the same settings.

Source: Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using Latent Space
Manipulation* (baseline).""",
        (0, 880, 820, 330),
    ),
    "02_aggregated_attention": Page(
        {
            **_BASE,
            "Words": (420, 720, 400, 260),
            "Where the subject is": (420, 1060, 400, 400),
            "Sampler": (900, 60, 400, 560),
            "Decode": (900, 720, 400, 80),
            "Result": (1380, 60, 420, 480),
            "Masks as pictures": (900, 880, 400, 80),
            "Masks": (1380, 620, 420, 340),
            "Heat maps": (900, 1040, 400, 520),
            "What the words attend to": (1380, 1040, 420, 420),
        },
        {
            "1 · Model and reference": (-20, -20, 380, 840),
            "2 · Prompt": (400, -20, 440, 660),
            "3 · Which words, and where": (400, 660, 440, 820),
            "4 · Sample and replace": (880, -20, 440, 660),
            "5 · Look": (880, 660, 440, 920),
            "6 · Results": (1360, -20, 460, 1500),
        },
        """## Aggregated attention: keep the reference's surroundings

At steps **5, 18 and 28** the sampler asks where the model's cross-attention looks at the *subject* word. Inside
that mask the latent stays; outside it is overwritten with the **reference, noised to the same step**. The subject
changes, its surroundings stay.

**Settings** of the source documents: strength 0.7, 50 steps (here 35 that are run), cfg 8, DDPM, threshold: the
map's mean. Put a picture of *something on a scene* in, and prompt *something else on that scene*.

**Try**: `role` all or scene · `rule` otsu · `invert` · other steps in `manipulate_at` · denoise 0.9.

**To run it** choose any SD 1.x or 2.x checkpoint and a picture of the size the model likes (512 × 512 for SD 1.5).
The toy checkpoint of the tests wants 128 × 128 pictures and the same settings.

Source: Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using Latent Space
Manipulation*, Experiment 1.""",
        (-20, 880, 380, 600),
    ),
    "05_explain_picture": Page(
        {
            "Checkpoint": (0, 60, 340, 120),
            "Picture to explain": (0, 260, 340, 380),
            "Picture as latent": (0, 720, 340, 80),
            "Prompt": (420, 60, 400, 140),
            "Positive prompt": (420, 280, 400, 120),
            "Words": (420, 480, 400, 320),
            "Look at the words": (900, 60, 400, 240),
            "Heat maps": (900, 380, 400, 420),
            "What the words attend to": (1380, 60, 420, 740),
        },
        {
            "1 · Model and picture": (-20, -20, 380, 840),
            "2 · Describe the picture": (400, -20, 440, 840),
            "3 · Probe": (880, -20, 440, 840),
            "4 · Result": (1360, -20, 460, 840),
        },
        """## Explain a picture: which part belongs to which word

Describe **your own picture** with a prompt. The picture is noised a little and shown to the model once; for each word
the heat map says where the model's cross-attention looks at it. Nothing is sampled, the picture stays as it is.

**noise_level**: 0.3 gives sharp maps; more noise asks the model for the composition instead of the details, with
rounder maps. On the toy checkpoint the subject's map agrees best with the true subject at low levels.

**To run it** choose any SD 1.x, SD 2.x or SDXL checkpoint and a picture of the size the model likes. The toy checkpoint
of the tests wants 128 × 128 pictures.

Source: method of Experiment 1 in Devaney, Pathania, Andrade, Maheshwari, *Image Generation via Stable Diffusion Using
Latent Space Manipulation*, applied to an existing picture.""",
        (0, 880, 820, 330),
    ),
}


def to_ui(workflow: Workflow, page: Page, info: dict[str, Any]) -> dict[str, Any]:
    """Return the UI format (version 0.4) of `workflow`. `info` is the answer of ComfyUI's `/object_info`."""
    graph = workflow.graph
    links: list[list[Any]] = []
    nodes = {node_id: _node(int(node_id), graph[node_id], page, info) for node_id in _in_order(graph)}
    for order, (node_id, node) in enumerate(nodes.items()):
        node["order"] = order
        for slot, entry in enumerate(node["inputs"]):
            value = graph[node_id]["inputs"].get(entry["name"])
            if isinstance(value, list):
                source, output = nodes[value[0]], value[1]
                entry["link"] = len(links) + 1
                kind = source["outputs"][output]["type"]
                links.append([entry["link"], source["id"], output, node["id"], slot, kind])
                source["outputs"][output]["links"].append(entry["link"])
    last = max(node["id"] for node in nodes.values()) + 1
    note = {
        "id": last,
        "type": "MarkdownNote",
        "pos": list(page.note_box[:2]),
        "size": list(page.note_box[2:]),
        "flags": {},
        "order": len(nodes),
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": "About this workflow",
        "properties": {},
        "widgets_values": [_unwrapped(page.note)],
    }
    groups = [
        {"id": i, "title": title, "bounding": list(box), "color": "#3f789e", "font_size": 24, "flags": {}}
        for i, (title, box) in enumerate(page.groups.items(), 1)
    ]
    return {
        "last_node_id": last,
        "last_link_id": len(links),
        "nodes": [*nodes.values(), note],
        "links": links,
        "groups": groups,
        "config": {},
        "extra": {"ds": {"scale": 0.7, "offset": [80, 80]}},
        "version": 0.4,
    }


def _unwrapped(text: str) -> str:
    """Paragraphs on one line each: the note's own width decides where they break."""
    return "\n\n".join(" ".join(paragraph.splitlines()) for paragraph in text.split("\n\n"))


def _in_order(graph: dict[str, Any]) -> list[str]:
    """Node ids so that every node comes after those it needs."""
    done: list[str] = []
    while len(done) < len(graph):
        for node_id, node in graph.items():
            needs = {v[0] for v in node["inputs"].values() if isinstance(v, list)}
            if node_id not in done and needs <= set(done):
                done.append(node_id)
    return done


def _node(node_id: int, node: dict[str, Any], page: Page, info: dict[str, Any]) -> dict[str, Any]:
    described = info[node["class_type"]]
    title = node["_meta"]["title"]
    x, y, width, height = page.boxes[title]
    inputs, values = [], []
    for name, kind, options in described_inputs(described):
        value = node["inputs"].get(name)
        if kind not in WIDGETS:
            inputs.append({"name": name, "type": kind, "link": None})
            continue
        if isinstance(value, list):
            inputs.append({"name": name, "type": kind, "link": None, "widget": {"name": name}})
            value = options.get("default", "")
        values.append(value)
        if options.get("control_after_generate"):
            values.append("fixed")
        if options.get("image_upload"):
            values.append("image")
    outputs = [
        {"name": name, "type": kind, "links": [], "slot_index": slot}
        for slot, (name, kind) in enumerate(zip(described["output_name"], described["output"], strict=True))
    ]
    ours = described["python_module"].startswith("custom_nodes")
    return {
        "id": node_id,
        "type": node["class_type"],
        "pos": [x, y],
        "size": [width, height],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        "title": title,
        "properties": {
            "Node name for S&R": node["class_type"],
            "cnr_id": "explainable-latents" if ours else "comfy-core",
        },
        "widgets_values": values,
    }


def described_inputs(described: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, type and options of every input in display order."""
    for group in ("required", "optional"):
        for name in described["input_order"].get(group, []):
            kind, *options = described["input"][group][name]
            yield name, "COMBO" if isinstance(kind, list) else kind, options[0] if options else {}


def main() -> None:
    """Write every page's UI workflow."""
    with ComfyServer() as server, ComfyClient(server) as client:
        info = client.object_info()
    for name, page in PAGES.items():
        made = json.dumps(to_ui(Workflow.shipped(name), page, info), indent=2, ensure_ascii=False)
        (ROOT / "workflows" / f"{name}.json").write_text(made + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
