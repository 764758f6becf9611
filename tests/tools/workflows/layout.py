"""Lay out the API graphs as UI workflows: `python -m tests.tools.workflows.layout` (`make workflows`).

`workflows/api/*.json` are written by hand; `workflows/*.json` are made from them, `pages.py` and the node
descriptions of a running ComfyUI, so that both always hold the same graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main
from ..comfyui.server import ComfyServer
from .graphs import ROOT, Workflow
from .pages import PAGES, Page

ANY_OF = "COMFY_MATCHTYPE_V3"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


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
                if entry["type"] == ANY_OF:
                    _settle(node, kind)
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


def _settle(node: dict[str, Any], kind: str) -> None:
    """Give the sockets of a node that takes several types, and gives the one it takes, that one."""
    for socket in (*node["inputs"], *node["outputs"]):
        if socket["type"] == ANY_OF:
            socket["type"] = kind


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
        if value is None:  # a widget that came later, behind all others, left at its default
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
