"""The evaluation is tested on real servers, with the toy checkpoint and few steps."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.tools.comfyui.server import ComfyServer
from tests.tools.workflows.graphs import API

from .running import evaluate

FEW_STEPS = {"Sampler.steps": 4}
BASELINE = {"workflow": "01_baseline", "set": FEW_STEPS}
AGGREGATED = {"workflow": "02_aggregated_attention", "set": {**FEW_STEPS, "Sampler.manipulate_at": "1, 2"}}
CASES = (("cat", "dog", "beach"), ("bus", "elephant", "city"), ("dog", "car", "highway"), ("horse", "cat", "forest"))


SERVER_NODES = Path(__file__).with_name("server_nodes.py")


def new_server() -> ComfyServer:
    """A server with this pack, the toy model and the nodes in `server_nodes.py`."""
    return ComfyServer(custom_nodes=[SERVER_NODES])


@pytest.fixture(scope="session")
def server() -> Iterator[ComfyServer]:
    """Such a server, running."""
    with new_server() as running:
        yield running


def close_gate(server: ComfyServer, prompt: str) -> None:
    """Runs of this prompt (*: of any) do not end on this server."""
    (server.base / "input" / "closed").write_text(prompt)


def gated(folder: Path, method: dict[str, Any]) -> dict[str, Any]:
    """A method with a gate before its result; its workflow file is put into `folder`."""
    name = method["workflow"]
    graph = json.loads((API / f"{name}.json").read_text())
    (prompt,) = (i for i, node in graph.items() if node["_meta"]["title"] == "Prompt")
    (result,) = (node for node in graph.values() if node["_meta"]["title"] == "Result")
    graph["text"] = {"class_type": "PrimitiveStringMultiline", "inputs": {"value": ""}, "_meta": {"title": "Text"}}
    graph[prompt]["inputs"]["text"] = ["text", 0]
    inputs = {"image": result["inputs"]["images"], "prompt": ["text", 0]}
    graph["gate"] = {"class_type": "EvaluateGate", "inputs": inputs, "_meta": {"title": "Gate"}}
    result["inputs"]["images"] = ["gate", 0]
    (folder / f"{name}_gated.json").write_text(json.dumps(graph))
    return {**method, "workflow": f"{name}_gated.json", "slots": {"prompt": "Text.value"}}


def toy_description(**changes: Any) -> dict[str, Any]:
    """A description of four drawn references in two categories, with one fast method."""
    pictures = []
    for i, (old, new, scene) in enumerate(CASES):
        drawn = {"subject": old, "scene": scene, "colour": "brown", "seed": 1_000_300 + i}
        pictures.append({"draw": drawn, "subjects": new, "scenes": scene})
    plain = {
        "name": "small",
        "checkpoint": "toy.safetensors",
        "seeds": 5,
        "features": "toy",
        "methods": {"baseline": BASELINE},
        "categories": {"first": {"pictures": pictures[:2]}, "second": {"pictures": pictures[2:]}},
    }
    return {**plain, **changes}


@pytest.fixture
def describe(tmp_path: Path) -> Callable[..., Path]:
    """Write a description with these changes and return its file."""

    def write(**changes: Any) -> Path:
        file = tmp_path / "description.yaml"
        file.write_text(yaml.safe_dump(toy_description(**changes), sort_keys=False))
        return file

    return write


@pytest.fixture(scope="session")
def finished(server, tmp_path_factory):
    """A whole evaluation by one server: its description, its folder and what it said."""
    folder = tmp_path_factory.mktemp("finished")
    file = folder / "description.yaml"
    methods = {"baseline": gated(folder, BASELINE), "aggregated attention": gated(folder, AGGREGATED)}
    file.write_text(yaml.safe_dump(toy_description(methods=methods, real="drawn"), sort_keys=False))
    done = evaluate(file, "--server", server.url, "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    return file, folder / "out", done
