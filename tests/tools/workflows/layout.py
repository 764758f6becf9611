"""Lay out the API graphs as UI workflows: `python -m tests.tools.workflows.layout` (`make workflows`).

`workflows/api/*.json` are written by hand; `workflows/*.json` are made from them, the index in `js/templates.json`,
`pages.py`, `notes/` and the node descriptions of a running ComfyUI, so that both always hold the same graph.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any

from ..comfyui.client import ComfyClient
from ..comfyui.command import run_main
from ..comfyui.server import ComfyServer
from .graphs import ROOT
from .index import TEMPLATES, Template
from .pages import NOTE_TITLES, PAGES, Page
from .placing import LARGEST, TITLE_BAR, Box, Wire, place

ANY_OF = "COMFY_MATCHTYPE_V3"
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
GROUP_HEAD, GROUP_EDGE = 50, 12  # of a group's frame: above the title bars in it, and around them
NOTE_GAP = 44
LINKED_WIDGET = 0.7  # sockets below the last one is that of a widget that is linked
# Titles that say no more than the node's own name: the host shows that one, in its language.
NAMED_BY_HOST = {
    "Checkpoint",
    "Decode",
    "Empty latent",
    "Mark by colour",
    "Mask as picture",
    "Masks as pictures",
    "Picture as latent",
    "Reference latent",
    "Sampler",
}
# The models that the templates name, as the host's own templates name them: missing ones are offered for download.
_HUB = "https://huggingface.co/"
_QWEN = f"{_HUB}Comfy-Org/Qwen-Image_ComfyUI/resolve/main/split_files"
_Z_IMAGE = f"{_HUB}Comfy-Org/z_image_turbo/resolve/main/split_files"
_FLUX_TEXT = f"{_HUB}comfyanonymous/flux_text_encoders/resolve/main"
# The name of a file -> the folder that it belongs into, and where it is.
MODELS = {
    "v1-5-pruned-emaonly-fp16.safetensors": (
        "checkpoints",
        f"{_HUB}Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/v1-5-pruned-emaonly-fp16.safetensors?download=true",
    ),
    "flux1-dev.safetensors": (
        "diffusion_models",
        f"{_HUB}Comfy-Org/flux1-dev/resolve/main/flux1-dev.safetensors",
    ),
    "clip_l.safetensors": ("text_encoders", f"{_FLUX_TEXT}/clip_l.safetensors"),
    "t5xxl_fp16.safetensors": ("text_encoders", f"{_FLUX_TEXT}/t5xxl_fp16.safetensors"),
    "ae.safetensors": ("vae", f"{_Z_IMAGE}/vae/ae.safetensors"),
    "qwen_image_fp8_e4m3fn.safetensors": (
        "diffusion_models",
        f"{_QWEN}/diffusion_models/qwen_image_fp8_e4m3fn.safetensors",
    ),
    "qwen_2.5_vl_7b_fp8_scaled.safetensors": (
        "text_encoders",
        f"{_QWEN}/text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors",
    ),
    "qwen_image_vae.safetensors": ("vae", f"{_QWEN}/vae/qwen_image_vae.safetensors"),
    "z_image_turbo_bf16.safetensors": (
        "diffusion_models",
        f"{_Z_IMAGE}/diffusion_models/z_image_turbo_bf16.safetensors",
    ),
    "qwen_3_4b.safetensors": ("text_encoders", f"{_Z_IMAGE}/text_encoders/qwen_3_4b.safetensors"),
}


def to_ui(template: Template, page: Page, info: dict[str, Any]) -> dict[str, Any]:
    """Return the UI format (version 0.4) of a template. `info` is the answer of ComfyUI's `/object_info`.

    ValueError when its nodes cannot be placed, or the page is too large for its text to be drawn when it opens.
    """
    graph = template.prompt
    wires = wires_of(graph, info)
    boxes = place(page, graph, wires)
    links: list[list[Any]] = []
    nodes = {i: _node(int(i), graph[i], boxes[graph[i]["_meta"]["title"]], info) for i in _in_order(graph)}
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
    first = max(node["id"] for node in nodes.values()) + 1
    notes = [_note(first + i, *each) for i, each in enumerate(zip(NOTE_TITLES, template.notes, strict=True))]
    _put_below(notes, page, boxes)
    boxes |= {note["title"]: Box(*note["pos"], *note["size"]) for note in notes}
    under = [(wire, title) for wire in wires for title in NOTE_TITLES if wire.under(boxes, title)]
    if under:
        raise ValueError(f"{template.graph}: wires pass under notes: {under}")
    everything = [*nodes.values(), *notes]
    for order, node in enumerate(everything):
        node["order"] = order
    width = max(node["pos"][0] + node["size"][0] for node in everything)
    height = max(node["pos"][1] + node["size"][1] for node in everything) + TITLE_BAR
    if width > LARGEST[0] or height > LARGEST[1]:
        raise ValueError(f"{template.graph} takes {width} × {height}, more than {LARGEST}: no text would be drawn")
    return {
        "last_node_id": first + len(notes) - 1,
        "last_link_id": len(links),
        "nodes": everything,
        "links": links,
        "groups": _groups(page, boxes),
        "config": {},
        "extra": {"ds": {"scale": 0.6, "offset": [120, 160]}, "explainable_latents": template.graph},
        "version": 0.4,
    }


def wires_of(graph: dict[str, Any], info: dict[str, Any]) -> list[Wire]:
    """The links of a graph, with the sockets that they have on the canvas."""
    titles = {node_id: node["_meta"]["title"] for node_id, node in graph.items()}
    found = []
    for node_id, node in graph.items():
        sockets = [name for name, kind, _ in described_inputs(info[node["class_type"]]) if kind not in WIDGETS]
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                number = sockets.index(name) if name in sockets else len(sockets) + LINKED_WIDGET
                found.append(Wire(titles[value[0]], value[1], titles[node_id], number))
    return found


def _note(number: int, title: str, text: str) -> dict[str, Any]:
    """A note, whose place is given later."""
    return {
        "id": number,
        "type": "MarkdownNote",
        "pos": [0, 0],
        "size": [0, 0],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [],
        "outputs": [],
        "title": title,
        "properties": {},
        "widgets_values": [text],
    }


def _put_below(notes: list[dict[str, Any]], page: Page, boxes: dict[str, Box]) -> None:
    """Put the notes below their columns, as high as their text needs, or as the page allows."""
    for note, (first, last) in zip(notes, page.notes, strict=True):
        above = [boxes[title] for column in page.columns[first : last + 1] for title in column.titles]
        left = min(box.x for box in above)
        top = page.tops.get(note["title"], max(box.bottom for box in above) + NOTE_GAP + TITLE_BAR)
        width = max(box.x + box.width for box in above) - left
        (text,) = note["widgets_values"]
        wide = 13 if text[3] >= "\u4e00" else 6.5  # pixels of a character
        lines = sum(1.6 + len(paragraph) * wide // (width - 30) for paragraph in text.split("\n\n"))
        note["pos"] = [left, round(top)]
        note["size"] = [width, round(min(50 + 12 * lines, LARGEST[1] - TITLE_BAR - top))]


def _groups(page: Page, boxes: dict[str, Box]) -> list[dict[str, Any]]:
    """The frames of groups: columns with the same one, side by side."""
    members: dict[str, list[Box]] = {}
    name = ""
    for column in page.columns:
        name = column.group or name
        members.setdefault(name, []).extend(boxes[title] for title in column.titles)
    found = []
    for number, (name, inside) in enumerate(members.items(), 1):
        left, top = min(box.x for box in inside) - GROUP_EDGE, min(box.y for box in inside) - TITLE_BAR - GROUP_HEAD
        right, bottom = max(box.x + box.width for box in inside), max(box.bottom for box in inside)
        bounding = left, round(top), right + GROUP_EDGE - left, round(bottom + GROUP_EDGE - top)
        found.append(_group(number, (name, bounding)))
    return found


def _group(number: int, group: tuple[str, tuple[float, float, float, float]]) -> dict[str, Any]:
    title, box = group
    return {"id": number, "title": title, "bounding": list(box), "color": "#3f789e", "font_size": 24, "flags": {}}


def _settle(node: dict[str, Any], kind: str) -> None:
    """Give the sockets of a node that takes several types, and gives the one it takes, that one."""
    for socket in (*node["inputs"], *node["outputs"]):
        if socket["type"] == ANY_OF:
            socket["type"] = kind


def _in_order(graph: dict[str, Any]) -> list[str]:
    """Node ids so that every node comes after those it needs."""
    done: list[str] = []
    while len(done) < len(graph):
        for node_id, node in graph.items():
            needs = {v[0] for v in node["inputs"].values() if isinstance(v, list)}
            if node_id not in done and needs <= set(done):
                done.append(node_id)
    return done


def _node(node_id: int, node: dict[str, Any], box: Box, info: dict[str, Any]) -> dict[str, Any]:
    described = info[node["class_type"]]
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
        "pos": [box.x, round(box.y)],
        "size": [box.width, box.height],
        "flags": {"collapsed": True} if box.folded else {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": outputs,
        **({} if node["_meta"]["title"] in NAMED_BY_HOST else {"title": node["_meta"]["title"]}),
        "properties": {
            "Node name for S&R": node["class_type"],
            "cnr_id": "explainable-latents" if ours else "comfy-core",
            **_models(node["inputs"].values()),
        },
        "widgets_values": values,
    }


def _models(values: Iterable[Any]) -> dict[str, list[dict[str, str]]]:
    """The property of a node with these inputs that says where to download the files among them."""
    names = [value for value in values if isinstance(value, str) and value in MODELS]
    found = [{"name": name, "url": MODELS[name][1], "directory": MODELS[name][0]} for name in names]
    return {"models": found} if found else {}


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
    for template in TEMPLATES:
        made = json.dumps(to_ui(template, PAGES[template.graph], info), indent=2, ensure_ascii=False)
        (ROOT / "workflows" / f"{template.file}.json").write_text(made + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_main(main)
